-- fill.lua: stores what was loaded, unless it may be older than an invalidation. What others hold in
-- other schemas stays.
-- KEYS[1]  value   KEYS[2]  meta   KEYS[3]  tags   KEYS[4]  lease
-- ARGV[1]  token;  [2] envelope;  [3] ttl, ms;  [4] channel;  [5] signal;  [6] ttl of the log, ms
-- ARGV[7]  and on: the value's tags
-- returns  1 stored | 0 refused
-- clock    the server's TIME
-- expiry   the value by PX
-- refused  the lease is another's, has run out or was deleted by an invalidation; or the log was
--          cleared, or began anew, or a tag was bumped, since the lease was granted
-- twin     src/ops/fill.rs
local held = lease_read(KEYS[4], now)
if not held or held.token ~= ARGV[1] then return 0 end
local meta = redis.call('GET', KEYS[2])
local fresh, log = false, nil
if meta and #meta == 32 then
  local epoch, seq, last, clear = struct.unpack('>c8I8c8I8', meta)
  log = { epoch = epoch, seq = seq, last = last, clear = clear }
  if #ARGV > 6 then
    tags_open(KEYS[3], log, ARGV[6])
    if log.clear ~= clear then log_save(KEYS[2], log, ARGV[6]) end
  end
  fresh = held.epoch == epoch and held.seq >= log.clear and tags_since(KEYS[3], 7, held.seq)
end
if fresh then
  local set = value_add(KEYS[1], log, held.seq, now, ARGV[2], ARGV[3])
  if type(set) == 'table' and set.err then return set end
end
redis.call('DEL', KEYS[4])
if held.awaited == 1 then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
return fresh and 1 or 0
