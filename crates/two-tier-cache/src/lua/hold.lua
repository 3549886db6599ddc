-- hold.lua: lets a guard live on.
-- KEYS[1]  guards
-- ARGV[1]  token of the guard, 8 bytes;  [2] ms 1..60000 that it lives from now on
-- returns  1
-- clock    the server's TIME
-- expiry   the guards by PX, with the last of them
-- lost     a guard that the server has lost is there again after this
-- full     PEXPIRE comes first, for the same reason as in guard.lua
-- twin     src/ops/guard.rs
redis.call('PEXPIRE', KEYS[1], ARGV[2])
guards_set(KEYS[1], now, ARGV[1], tonumber(ARGV[2]))
return 1
