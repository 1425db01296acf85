/** How Upstash bills the commands that `npm run costs` meets. */

/** Once. A script is, and each command that it runs by its own kind. */
export const READS = "EVAL EVALSHA TIME MGET GET HMGET HLEN".split(" ");
/** Once per region. GETEX reads, but is one of these to Redis. */
export const WRITES = "SET INCR DECRBY INCRBY DELEX GETEX HSET PEXPIRE ZINCRBY".split(" ");
