-- gcra_batch.lua: spend several costs of one quota, one after the other, as if each came alone at
-- this moment; follows settle.lua, after a standing that serves all of them, and writes at most once.
-- ARGV[3]  0: gcra.lua finds out where the quota stands, and no more
-- ARGV[4]  the costs in their order, 4 bytes each, big-endian; 0..burst
-- returns  string, big-endian: 21 bytes per cost { allowed 1, cells left 4, retry_after 8,
--          reset_after 8 }, then { now 8 }, and if the key has a preface { generation 8, life 8,
--          refunds 8, µs blocked 8 }
-- denied   as gcra_check.lua; what was refused does not keep later, smaller costs from being spent
local replies, is_spent, is_refused = {}, false, false
local pause = math.max(0, blocked - now)
for place = 1, #ARGV[4], 4 do
  cost = struct.unpack('>I4', ARGV[4], place)
  wait = 0
  if cost > 0 then wait = math.max(0, debt + cost * interval - span) end
  if wait > 0 or pause > 0 then
    is_refused = true
  elseif cost > 0 then
    debt = debt + cost * interval
    ends, is_spent = now + debt, true
  end
  left = math.max(0, math.floor((span - debt) / interval))
  if pause > 0 then left = 0 end
  replies[#replies + 1] = struct.pack(
    '>BI4I8I8',
    (wait == 0 and pause == 0) and 1 or 0,
    left,
    math.max(pause, math.min(wait, ends - now)),
    math.max(pause, math.min(debt, ends - now))
  )
end
if is_spent or is_refused and (moved_tat or is_preface_moved) then
  local state = raw
  if is_spent then
    state = struct.pack('>I8I8I8', now + debt, now, interval)
  elseif moved_tat then
    state = struct.pack('>I8I8I8', moved_tat, now, moved_interval)
  end
  local ttl = math.ceil((math.max(ends, kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
replies[#replies + 1] = struct.pack('>I8', now)
if preface ~= '' then
  replies[#replies + 1] = struct.pack('>I8I8I8I8', generation, life, refunds, pause)
end
return table.concat(replies)
