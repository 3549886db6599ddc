-- fill.lua: stores what was loaded, unless it may be older than an invalidation.
-- KEYS[1]  value   KEYS[2]  meta   KEYS[3]  lease
-- ARGV[1]  token;  [2] envelope;  [3] ttl, ms;  [4] channel;  [5] signal
-- returns  1 stored | 0 refused
-- clock    the server's TIME
-- expiry   the value by PX
-- refused  the lease is another's, has run out or was deleted by an invalidation; or the log was
--          cleared, or began anew, since the lease was granted
-- twin     src/ops/fill.rs
local held = lease_read(KEYS[3], now)
if not held or held.token ~= ARGV[1] then return 0 end
local meta = redis.call('GET', KEYS[2])
local fresh = false
if meta and #meta == 32 then
  local epoch, seq, last, clear = struct.unpack('>c8I8c8I8', meta)
  fresh = held.epoch == epoch and held.seq >= clear
end
if fresh then
  local set = value_set(KEYS[1], held.epoch, held.seq, now, ARGV[2], ARGV[3])
  if type(set) == 'table' and set.err then return set end
end
redis.call('DEL', KEYS[3])
if held.awaited == 1 then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
return fresh and 1 or 0
