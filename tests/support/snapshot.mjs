/** All keys of a store as JSON, and back: types, values and times to live, those of hash fields too. */

/** @typedef {import("./worker.mjs").LocalStore["redis"]} Redis */
/**
 * A string's bytes: as text where they are UTF-8, else in base64.
 * @typedef {string | { base64: string }} Text
 */
/**
 * @typedef {object} Key
 * @property {"string" | "hash"} type
 * @property {number | null} ttl Milliseconds that are left; null: for ever.
 * @property {Text | Record<string, string>} value Of a hash its fields.
 * @property {Record<string, number>} [field_ttls] Of the fields that have one.
 */
/** @typedef {Record<string, Key>} Snapshot By the names of the keys. */

/** The client's replies, with bytes for strings. */
const BYTES = { typeMapping: { 36: Buffer } };

/** @param {Redis} redis @returns {Promise<Snapshot>} */
export async function takeSnapshot(redis) {
  /** @type {Snapshot} */
  const snapshot = {};
  for (const name of (await redis.keys("*")).map(String).sort()) {
    const type = String(await redis.type(name));
    const left = Number(await redis.pTTL(name));
    const ttl = left < 0 ? null : left;
    if (type === "string") {
      snapshot[name] = { type, ttl, value: toText(await send(redis, ["GET", name])) };
    } else if (type === "hash") {
      const value = /** @type {Record<string, string>} */ ({ ...(await redis.hGetAll(name)) });
      const field_ttls = await fieldTtls(redis, name, Object.keys(value));
      const has = Object.keys(field_ttls).length > 0;
      snapshot[name] = { type, ttl, value, ...(has ? { field_ttls } : {}) };
    } else {
      throw new Error(`a snapshot has no place for the ${type} ${name}`);
    }
  }
  return snapshot;
}

/**
 * Empties the store and fills it.
 * @param {Redis} redis
 * @param {Snapshot} snapshot
 * @param {{ atLeast?: number }} [options] Milliseconds: nothing ends sooner by itself. A test can be slower than the
 *   shortest times to live, and those of Valkey do not follow the clock that tests move.
 */
export async function restoreSnapshot(redis, snapshot, { atLeast = 0 } = {}) {
  await redis.flushDb();
  const longer = (/** @type {number} */ ttl) => Math.max(ttl, atLeast);
  for (const [name, { type, ttl, value, field_ttls = {} }] of Object.entries(snapshot)) {
    if (type === "string") {
      await redis.set(name, fromText(/** @type {Text} */ (value)));
    } else {
      await redis.hSet(name, /** @type {Record<string, string>} */ (value));
      for (const [field, left] of Object.entries(field_ttls)) {
        await redis.hpExpire(name, [field], longer(left));
      }
    }
    if (ttl !== null) await redis.pExpire(name, longer(ttl));
  }
}

/** @param {Redis} redis @param {string} name @param {string[]} fields @returns {Promise<Record<string, number>>} */
async function fieldTtls(redis, name, fields) {
  const ttls = (await redis.hpTTL(name, fields)) ?? [];
  const pairs = fields.map((field, at) => /** @type {const} */ ([field, Number(ttls[at])]));
  return Object.fromEntries(pairs.filter(([, ttl]) => ttl >= 0));
}

/** @param {Redis} redis @param {string[]} command @returns {Promise<any>} */
const send = (redis, command) => redis.sendCommand(command, /** @type {any} */ (BYTES));

/** @param {Buffer} bytes @returns {Text} */
function toText(bytes) {
  const text = bytes.toString("utf8");
  return Buffer.from(text).equals(bytes) ? text : { base64: bytes.toString("base64") };
}

/** @param {Text} text */
const fromText = (text) => (typeof text === "string" ? text : Buffer.from(text.base64, "base64"));
