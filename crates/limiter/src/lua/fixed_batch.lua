-- fixed_batch.lua: spend several costs of one quota, one after the other, as if each came alone at
-- this moment; follows settle.lua, after a standing that serves all of them, and writes at most once.
-- ARGV[3]  0: fixed.lua finds out where the quota stands, and no more
-- ARGV[4]  the costs in their order, 4 bytes each, big-endian; 0..max
-- returns  as gcra_batch.lua
-- denied   as fixed_check.lua; what was refused does not keep later, smaller costs from being spent
local replies, is_spent, is_refused = {}, false, false
local pause = math.max(0, blocked - now)
for place = 1, #ARGV[4], 4 do
  cost = struct.unpack('>I4', ARGV[4], place)
  is_fitting = cost == 0 or sum + cost <= max
  is_allowed = is_fitting and pause == 0
  if not is_allowed then
    is_refused = true
  elseif cost > 0 then
    sum, lapses, is_spent = sum + cost, closes, true
  end
  left, reset = math.max(0, max - sum), lapses - now
  retry = is_fitting and 0 or reset
  if pause > 0 then left = 0 end
  replies[#replies + 1] = struct.pack(
    '>BI4I8I8',
    is_allowed and 1 or 0, left, math.max(pause, retry), math.max(pause, reset)
  )
end
if is_spent then ends = kept_until(closes, window) end
if is_spent or is_refused and (moved or is_preface_moved) then
  local state = is_spent and state_of(sum) or moved or raw
  local ttl = math.ceil((math.max(ends, kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
replies[#replies + 1] = struct.pack('>I8', now)
if preface ~= '' then
  replies[#replies + 1] = struct.pack('>I8I8I8I8', generation, life, refunds, pause)
end
return table.concat(replies)
