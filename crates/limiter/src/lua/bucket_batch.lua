-- bucket_batch.lua: take several costs, one after the other, as if each came alone at this moment;
-- follows bucket.lua, whose standing serves all of them, and writes at most once.
-- ARGV[4]  0: bucket.lua finds out where the quota stands, and no more
-- ARGV[5]  the costs in their order, 4 bytes each, big-endian; 0..burst
-- returns  string of 21 bytes per cost, big-endian:
--          { allowed 1, tokens left 4, retry_after 8, reset_after 8 }
-- denied   as bucket_check.lua; what was refused does not keep later, smaller costs from being taken
local replies, is_spent, is_refused = {}, false, false
for place = 1, #ARGV[5], 4 do
  cost = struct.unpack('>I4', ARGV[5], place)
  needed = 0
  if cost > 0 then needed = math.max(0, missing + cost - burst) end
  if needed > 0 then
    is_refused = true
  elseif cost > 0 then
    missing, is_spent = missing + cost, true
    lapses = now + time_of(missing, earned, gain, token)
  end
  replies[#replies + 1] = struct.pack(
    '>BI4I8I8',
    needed == 0 and 1 or 0,
    math.max(0, burst - missing),
    until_earned(needed),
    until_earned(missing)
  )
end
if is_spent then
  local state = struct.pack('>I4I4I8I8I8', missing, gain, token, earned, now)
  redis.call('SET', key, state, 'PX', string.format('%.0f', math.ceil((lapses - now) / 1000)))
elseif is_refused and moved then
  redis.call('SET', key, moved, 'PX', string.format('%.0f', math.ceil((lapses - now) / 1000)))
end
replies[#replies + 1] = struct.pack('>I8', now)
return table.concat(replies)
