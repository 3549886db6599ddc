-- guard.lua: begins or ends a guard on a key, and in either case invalidates it and tells everyone.
-- KEYS[1]  value   KEYS[2]  meta   KEYS[3]  guards   KEYS[4]  lease   KEYS[5]  stream
-- ARGV[1]  channel;  [2] fresh epoch;  [3] entry id;  [4] tail;  [5] entries kept;  [6] ttl of the log, ms
-- ARGV[7]  token of the guard, 8 bytes;  [8] ms 1..60000 that it lives; 0 = it ends
-- returns  meta
-- clock    the server's TIME
-- expiry   the guards by PX, with the last of them
-- full     DEL comes first: after a write, a server without room lets the rest of a script pass
-- twin     src/ops/guard.rs
redis.call('DEL', KEYS[1], KEYS[4])
guards_set(KEYS[3], now, ARGV[7], tonumber(ARGV[8]))
local log = log_open(KEYS[2], KEYS[5], ARGV[2])
log_append(KEYS[2], KEYS[5], ARGV[1], log, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return log_pack(log)
