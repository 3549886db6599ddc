-- window_check.lua: spend `cost` cells of one quota, atomically; between window.lua and
-- window_peek.lua, which answers if nothing is spent.
-- denied   debits nothing, and writes nothing unless the state is from the future, so a flood of
--          refusals replicates nothing
if is_allowed and cost > 0 then
  local reset = (index + 64) * width - now
  local is_new = was ~= index
  if not is_used then
    ring = string.rep('\0', 256)
  elseif is_new then
    -- A sub-window begins, so the count of the last one moves from the head to the ring.
    if oldest == was then first = current end
    local place, count = was % 64 * 4, struct.pack('>I4', current)
    if ring then
      ring = ring:sub(1, place) .. count .. ring:sub(place + 5)
    else
      redis.call('SETRANGE', key, string.format('%.0f', 36 + place), count)
    end
    current = 0
  end
  sum, current = sum + cost, current + cost
  head = struct.pack('>I8I8I4I4I8I4', now, width, sum, current, oldest, first)
  if ring then
    redis.call('SET', key, head .. ring, 'PX', string.format('%.0f', math.ceil(reset / 1000)))
  else
    redis.call('SETRANGE', key, 0, head)
    -- Within one sub-window the end of the state does not move.
    if is_new then
      redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(reset / 1000)))
    end
  end
  return { 1, max - sum, 0, reset }
end
if not is_allowed and moved_sum then
  local newest = math.floor(now / moved_width)
  head = struct.pack('>I8I8I4I4I8I4', now, moved_width, moved_sum, moved_sum, newest, 0)
  local ttl = math.ceil(((newest + 64) * moved_width - now) / 1000)
  redis.call('SET', key, head .. string.rep('\0', 256), 'PX', string.format('%.0f', ttl))
end
