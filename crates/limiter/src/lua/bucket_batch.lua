-- bucket_batch.lua: take several costs, one after the other, as if each came alone at this moment;
-- follows settle.lua, after a standing that serves all of them, and writes at most once.
-- ARGV[4]  0: bucket.lua finds out where the quota stands, and no more
-- ARGV[5]  the costs in their order, 4 bytes each, big-endian; 0..burst
-- returns  as gcra_batch.lua
-- denied   as bucket_check.lua; what was refused does not keep later, smaller costs from being taken
local replies, is_spent, is_refused = {}, false, false
local pause = math.max(0, blocked - now)
for place = 1, #ARGV[5], 4 do
  cost = struct.unpack('>I4', ARGV[5], place)
  needed = 0
  if cost > 0 then needed = math.max(0, missing + cost - burst) end
  if needed > 0 or pause > 0 then
    is_refused = true
  elseif cost > 0 then
    missing, is_spent = missing + cost, true
    ends = now + time_of(missing, earned, gain, token)
  end
  left = math.max(0, burst - missing)
  if pause > 0 then left = 0 end
  retry = time_of(needed, earned, gain, token)
  replies[#replies + 1] = struct.pack(
    '>BI4I8I8',
    (needed == 0 and pause == 0) and 1 or 0,
    left,
    math.max(pause, math.min(retry, ends - now)),
    math.max(pause, math.min(time_of(missing, earned, gain, token), ends - now))
  )
end
if is_spent or is_refused and (moved or is_preface_moved) then
  local state = is_spent and state_of(missing, earned) or moved or raw
  local ttl = math.ceil((math.max(ends, kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
replies[#replies + 1] = struct.pack('>I8', now)
if preface ~= '' then
  replies[#replies + 1] = struct.pack('>I8I8I8I8', generation, life, refunds, pause)
end
return table.concat(replies)
