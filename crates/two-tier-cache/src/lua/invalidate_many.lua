-- invalidate_many.lua: removes several values and the right to load their old forms, and tells everyone.
-- KEYS[1]  meta   KEYS[2]..  values   then as many leases   KEYS[#KEYS]  stream
-- ARGV[1]  channel;  [2] fresh epoch;  [3] entry id;  [4] tail;  [5] entries kept;  [6] ttl of the log, ms
-- returns  meta
-- full     DEL comes first: after a write, a server without room lets the rest of a script pass
-- bound    the caller names a few hundred keys at most: `unpack` stops at about 8,000
-- twin     src/ops/invalidate_many.rs
redis.call('DEL', unpack(KEYS, 2, #KEYS - 1))
local log = log_open(KEYS[1], KEYS[#KEYS], ARGV[2])
log_append(KEYS[1], KEYS[#KEYS], ARGV[1], log, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return log_pack(log)
