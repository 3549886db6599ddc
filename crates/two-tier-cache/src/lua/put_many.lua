-- put_many.lua: writes several values through, and tells everyone.
-- KEYS[1]  meta   KEYS[2]  tags   KEYS[3]..  values   then as many leases   KEYS[#KEYS]  stream
-- ARGV[1]  channel;  [2] fresh epoch;  [3] entry id;  [4] tail;  [5] entries kept;  [6] ttl of the log, ms
-- ARGV[7]  µs, until when the values may be stored; 0 = for ever
-- ARGV[8]  and on, for each value: envelope;  ttl, ms;  1 if it has tags
-- returns  meta
-- clock    the server's TIME
-- expiry   each value by PX
-- late     puts that their writer has given up only invalidate: something newer may be there
-- full     a server without room refuses the first write; then all of them become invalidations,
--          which take no room: what was there before must go in any case
-- twin     src/ops/put_many.rs
local log = log_open(KEYS[1], KEYS[#KEYS], ARGV[2])
local count, deadline = (#KEYS - 3) / 2, tonumber(ARGV[7])
local storing, tagged = deadline == 0 or now <= deadline, false
for at = 1, count do
  local arg = 5 + 3 * at
  if storing then
    local set = value_set(KEYS[2 + at], log.epoch, log.seq + 1, now, ARGV[arg], ARGV[arg + 1])
    storing = not (type(set) == 'table' and set.err)
  end
  if not storing then redis.call('DEL', KEYS[2 + at]) end
  tagged = tagged or ARGV[arg + 2] == '1'
end
redis.call('DEL', unpack(KEYS, 3 + count, 2 + 2 * count))
if tagged then tags_open(KEYS[2], log, ARGV[6]) end
log_append(KEYS[1], KEYS[#KEYS], ARGV[1], log, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return log_pack(log)
