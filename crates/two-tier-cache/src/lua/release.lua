-- release.lua: gives a lease back without a value, and wakes those who wait.
-- KEYS[1]  value (not read)   KEYS[2]  lease
-- ARGV[1]  token;  [2] channel;  [3] signal
-- returns  1 released | 0 was not held
-- clock    the server's TIME
-- twin     src/ops/lease.rs
local held = lease_read(KEYS[2], now)
if not held or held.token ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
if held.awaited == 1 then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
return 1
