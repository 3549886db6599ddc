-- clear.lua: voids everything that was stored or leased before, without touching it.
-- KEYS[1]  meta   KEYS[2]  stream
-- ARGV[1]  channel;  [2] fresh epoch;  [3] entry id;  [4] tail;  [5] entries kept;  [6] ttl of the log, ms
-- returns  meta
-- full     PEXPIRE comes first: after a write, a server without room lets the rest of a script pass
-- twin     src/ops/invalidate.rs
redis.call('PEXPIRE', KEYS[1], ARGV[6])
local log = log_open(KEYS[1], KEYS[2], ARGV[2])
log.clear = log.seq + 1
log_append(KEYS[1], KEYS[2], ARGV[1], log, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return log_pack(log)
