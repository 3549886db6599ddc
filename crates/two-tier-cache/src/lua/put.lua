-- put.lua: writes a value through, and tells everyone. In other schemas the value is old now: it goes.
-- KEYS[1]  value   KEYS[2]  meta   KEYS[3]  tags   KEYS[4]  lease   KEYS[5]  stream
-- ARGV[1]  channel;  [2] fresh epoch;  [3] entry id;  [4] tail;  [5] entries kept;  [6] ttl of the log, ms
-- ARGV[7]  envelope;  [8] ttl, ms;  [9] 1 if the value has tags
-- ARGV[10] µs, until when the value may be stored; 0 = for ever
-- returns  { 1 stored | 0 not, meta }
-- clock    the server's TIME
-- expiry   the value by PX
-- late     a put that its writer has given up only invalidates: something newer may be there
-- full     a server without room refuses the first write; then the put becomes an invalidation,
--          which takes no room: what was there before must go in any case
-- twin     src/ops/put.rs
local log = log_open(KEYS[2], KEYS[5], ARGV[2])
local stored, deadline = 0, tonumber(ARGV[10])
if deadline == 0 or now <= deadline then
  local set = value_set(KEYS[1], log.epoch, log.seq + 1, now, ARGV[7], ARGV[8])
  if not (type(set) == 'table' and set.err) then stored = 1 end
end
if stored == 0 then redis.call('DEL', KEYS[1]) end
redis.call('DEL', KEYS[4])
if ARGV[9] == '1' then tags_open(KEYS[3], log, ARGV[6]) end
log_append(KEYS[2], KEYS[5], ARGV[1], log, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return { stored, log_pack(log) }
