-- invalidate.lua: removes a value, in every schema, and the right to load its old form, and tells everyone.
-- KEYS[1]  value   KEYS[2]  meta   KEYS[3]  lease   KEYS[4]  stream
-- ARGV[1]  channel;  [2] fresh epoch;  [3] entry id;  [4] tail;  [5] entries kept;  [6] ttl of the log, ms
-- returns  meta
-- full     DEL comes first: after a write, a server without room lets the rest of a script pass
-- twin     src/ops/invalidate.rs
redis.call('DEL', KEYS[1], KEYS[3])
local log = log_open(KEYS[2], KEYS[4], ARGV[2])
log_append(KEYS[2], KEYS[4], ARGV[1], log, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return log_pack(log)
