-- accuracy.lua: judge decisions that were made elsewhere by an exact count of what was admitted; after
-- `takes` and `peeks`, which hold whole scripts of each kind of quota as functions of (KEYS, ARGV, now).
-- KEYS[1]  what was admitted, as the kind keeps it;  [2] string of 8, big-endian: µs, the last
--          decision that was judged; in one slot
-- ARGV     kind, the arguments of its quota .., µs for which what was admitted is kept, and last the
--          decisions, in their order, 13 bytes each: { age 8: µs since it was made, cost 4: 1..,
--          allowed 1 }, big-endian
-- returns  { cells that were admitted above the quota, refusals of what the quota had room for }
-- clock    a decision is dated by its age, but never before one that was judged, nor after now
-- excess   is not kept: each cell above the quota counts once, and not against those that come later
-- expiry   the date after a minute, which is longer than any decision waits to be judged; what was
--          admitted so much later than it is over, because decisions are judged that are as old
-- twin     src/accuracy/op.rs; tests/accuracy_twin.rs compares replies and states exactly
local kind, decisions, kept, own = tonumber(ARGV[1]), ARGV[#ARGV], tonumber(ARGV[#ARGV - 1]), {}
for at = 2, #ARGV - 2 do own[at - 1] = ARGV[at] end
local place_of_cost, over, under, last, is_written = #own + 1, 0, 0, 0, false
local dated = redis.call('GET', KEYS[2])
if dated and #dated == 8 then last = struct.unpack('>I8', dated) end
for place = 1, #decisions, 13 do
  local age, cost, is_allowed = struct.unpack('>I8I4B', decisions, place)
  last = math.min(math.max(last, now - age), now)
  own[place_of_cost] = cost
  if is_allowed == 1 then
    local granted = takes[kind]({ KEYS[1] }, own, last)[9]
    over, is_written = over + cost - granted, is_written or granted > 0
  elseif peeks[kind]({ KEYS[1] }, own, last)[1] > 0 then
    under = under + 1
  end
end
if is_written then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil(kept / 1000)))
end
redis.call('SET', KEYS[2], struct.pack('>I8', last), 'PX', 60000)
return { over, under }
