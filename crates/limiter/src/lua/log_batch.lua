-- log_batch.lua: spend several costs of one quota, one after the other, as if each came alone at
-- this moment; follows log.lua, whose standing serves all of them, and writes at most once.
-- ARGV[3]  0: log.lua finds out where the quota stands, and no more
-- ARGV[4]  the costs in their order, 4 bytes each, big-endian; 0..max
-- returns  string, big-endian: 21 bytes per cost { allowed 1, cells left 4, retry_after 8,
--          reset_after 8 }, then { now 8 }
-- denied   as log_check.lua; what was refused does not keep later, smaller costs from being spent
local replies, is_spent, is_refused = {}, false, false
for place = 1, #ARGV[4], 4 do
  cost = struct.unpack('>I4', ARGV[4], place)
  too_many = 0
  if cost > 0 then too_many = math.max(0, live + cost - max) end
  if too_many > 0 then
    is_refused = true
  elseif cost > 0 then
    cells, gone = cells:sub(gone * 7 + 1) .. struct.pack('>I7', now):rep(cost), 0
    live, lapses, is_spent = live + cost, now + window, true
  end
  replies[#replies + 1] = struct.pack(
    '>BI4I8I8',
    too_many == 0 and 1 or 0,
    math.max(0, max - live),
    until_gone(too_many),
    until_gone(live)
  )
end
if is_spent then
  local state = struct.pack('>I8', window) .. cells
  redis.call('SET', key, state, 'PX', string.format('%.0f', math.ceil(window / 1000)))
elseif is_refused and moved then
  redis.call('SET', key, moved, 'PX', string.format('%.0f', math.ceil((lapses - now) / 1000)))
end
replies[#replies + 1] = struct.pack('>I8', now)
return table.concat(replies)
