-- fixed_batch.lua: spend several costs of one quota, one after the other, as if each came alone at
-- this moment; follows fixed.lua, whose standing serves all of them, and writes at most once.
-- ARGV[3]  0: fixed.lua finds out where the quota stands, and no more
-- ARGV[4]  the costs in their order, 4 bytes each, big-endian; 0..max
-- returns  string, big-endian: 21 bytes per cost { allowed 1, cells left 4, retry_after 8,
--          reset_after 8 }, then { now 8 }
-- denied   as fixed_check.lua; what was refused does not keep later, smaller costs from being spent
local replies, is_spent, is_refused = {}, false, false
for place = 1, #ARGV[4], 4 do
  cost = struct.unpack('>I4', ARGV[4], place)
  is_allowed = cost == 0 or sum + cost <= max
  if not is_allowed then
    is_refused = true
  elseif cost > 0 then
    sum, lapses, is_spent = sum + cost, ends, true
  end
  local retry = is_allowed and 0 or lapses - now
  local left = math.max(0, max - sum)
  replies[#replies + 1] = struct.pack('>BI4I8I8', is_allowed and 1 or 0, left, retry, lapses - now)
end
if is_spent then
  write(ends, window, sum)
elseif is_refused and moved_sum then
  write(moved_ends, moved_window, moved_sum)
end
replies[#replies + 1] = struct.pack('>I8', now)
return table.concat(replies)
