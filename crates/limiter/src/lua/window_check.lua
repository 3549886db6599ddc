-- window_check.lua: spend `cost` cells of one quota, atomically; follows window.lua.
-- denied   debits nothing, and writes nothing unless the state is from the future, so a flood of
--          refusals replicates nothing
if not is_allowed then
  local answer = unchanged()
  if moved then
    save(now, moved[1], moved[2], moved[2], math.floor(now / moved[1]), 0, empty_ring())
  end
  return answer
end
if cost == 0 then return unchanged() end
local reset = (index + SLOTS) * width - now
if not is_used then
  save(now, width, cost, cost, index, 0, empty_ring())
  return { 1, max - cost, 0, reset }
end
if was ~= index then
  -- A new sub-window begins, so the last one's count moves from the head to the ring.
  if oldest == was then first = current end
  if ring then
    ring = with_count(was, current)
  else
    local place = string.format('%.0f', HEAD_BYTES + was % SLOTS * 4)
    redis.call('SETRANGE', key, place, struct.pack('>I4', current))
  end
  current = 0
end
sum, current = sum + cost, current + cost
if ring then
  save(now, width, sum, current, oldest, first, ring)
else
  redis.call('SETRANGE', key, 0, struct.pack(HEAD, now, width, sum, current, oldest, first))
  -- Within one sub-window the end of the state does not move.
  if was ~= index then
    redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(reset / 1000)))
  end
end
return { 1, max - sum, 0, reset }
