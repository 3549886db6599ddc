-- renew.lua: lengthens a lease that is still held.
-- KEYS[1]  value (not read)   KEYS[2]  lease
-- ARGV[1]  token;  [2] length from now, ms 1..60000
-- returns  1 still held | 0 lost
-- clock    the server's TIME
-- twin     src/ops/lease.rs
local held = lease_read(KEYS[2], now)
if not held or held.token ~= ARGV[1] then return 0 end
held.deadline = now + ARGV[2] * 1000
lease_write(KEYS[2], held, ARGV[2])
return 1
