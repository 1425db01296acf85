//! What one command cannot do: a script of the store's, which nothing can come between.
//!
//! Arguments are text; records are hexadecimal, as those of Flask are bytes. Only the keys that are named are locked at Upstash;
//! a script is billed as one command and those that it calls.

/// In Lua: for how long it must be known that an id has ended whose record the application may write back. As long as that would
/// last: what is left of its time to live, or what it says itself; 400 days, as long as browsers keep a cookie, if it has no end.
macro_rules! kept_for {
    () => {
        "local function kept_for(stored, ttl)
  local left = redis.call('PTTL', KEYS[1])
  if left < 0 then return '34560000000' end
  local age = tonumber(string.match(stored, '\"originalMaxAge\":(%d+)')) or 0
  return string.format('%.0f', math.min(math.max(tonumber(ttl), left, age + 3600000), 34560000000))
end"
    };
}
/// Compare-and-set for bytes: 1, or 0 if the value is not the old one, or there is none. Keeps the time to live.
pub(super) const REPLACE: &str = "#!lua flags=allow-key-locking
local function bytes(hex) return (hex:gsub('..', function(pair) return string.char(tonumber(pair, 16)) end)) end
if redis.call('GET', KEYS[1]) ~= bytes(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], bytes(ARGV[2]), 'KEEPTTL')
return 1";

/// Creates a record of bytes: 1, or 0 if there is one.
pub(super) const CREATE: &str = "#!lua flags=allow-key-locking
local function bytes(hex) return (hex:gsub('..', function(pair) return string.char(tonumber(pair, 16)) end)) end
if redis.call('SET', KEYS[1], bytes(ARGV[1]), 'NX', 'PX', ARGV[2]) then return 1 end
return 0";

/// Moves a record to another key, with its time to live, and writes what stands beside both: 1, 0 if it is not the old
/// one, -1 if there is none. Without a new value it stays as it is, with its time to live. See [`kept_for!`] for how long it
/// is known that the old id has ended.
pub(super) const MOVE: &str = concat!(
    "#!lua flags=allow-key-locking
local function bytes(hex) return (hex:gsub('..', function(pair) return string.char(tonumber(pair, 16)) end)) end
",
    kept_for!(),
    "
local stored = redis.call('GET', KEYS[1])
if not stored then return -1 end
if stored ~= bytes(ARGV[1]) then return 0 end
redis.call('SET', KEYS[3], ARGV[4], 'PX', kept_for(stored, ARGV[6]))
redis.call('RENAME', KEYS[1], KEYS[2])
if ARGV[2] ~= '' then redis.call('SET', KEYS[2], bytes(ARGV[2]), 'PX', ARGV[3]) end
redis.call('SET', KEYS[4], ARGV[5], 'PX', ARGV[6])
return 1"
);

/// Deletes a record and notes beside it that it has ended, for a shorter time if nothing was stored: 1, 0 if there was none; or
/// what stands beside it, if that leads on to another id. A note that is there already stays.
pub(super) const END: &str = concat!(
    "#!lua flags=allow-key-locking
",
    kept_for!(),
    "
local beside = redis.call('GET', KEYS[2])
if beside and string.find(beside, '\"ended_at\":', 1, true) then
  local deleted = redis.call('DEL', KEYS[1])
  if string.find(beside, '\"next\":', 1, true) then return beside end
  return deleted
end
local stored = redis.call('GET', KEYS[1])
local ttl = ARGV[3]
if stored then ttl = kept_for(stored, ARGV[2])
elseif beside then ttl = string.format('%.0f', math.max(tonumber(ARGV[2]), redis.call('PTTL', KEYS[2]))) end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ttl)
return redis.call('DEL', KEYS[1])"
);

/// Notes that an id has ended whose record is gone: 1. If there is a record, it cannot be read, and is left as it is: 0. A note that
/// is there already stays.
pub(super) const NOTE: &str = "#!lua flags=allow-key-locking
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local beside = redis.call('GET', KEYS[2])
if beside and string.find(beside, '\"ended_at\":', 1, true) then return 1 end
local ttl = ARGV[2]
if beside then ttl = string.format('%.0f', math.max(tonumber(ttl), redis.call('PTTL', KEYS[2]))) end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ttl)
return 1";

/// Bytes as hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}
