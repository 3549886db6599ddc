-- window_check.lua: spend `cost` cells of one quota, atomically; before window_peek.lua, which answers
-- if nothing is spent.
-- denied   debits nothing, and writes nothing unless the state is from the future, so a flood of
--          refusals replicates nothing
is_allowed = is_fitting and blocked <= now
if is_allowed and cost > 0 then
  left, retry, reset = max - sum - cost, 0, (index + 64) * width - now
  local ttl = string.format('%.0f', math.ceil(math.max(reset, kept - now) / 1000))
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
      redis.call('SETRANGE', key, string.format('%.0f', base + 36 + place), count)
    end
    current = 0
  end
  sum, current = sum + cost, current + cost
  head = struct.pack('>I8I8I4I4I8I4', now, width, sum, current, oldest, first)
  if ring then
    redis.call('SET', key, preface .. head .. ring, 'PX', ttl)
  else
    -- A preface that begins or ends comes with a ring, so here it is as long as it was.
    redis.call('SETRANGE', key, 0, preface .. head)
    -- Within one sub-window the end of the state does not move.
    if is_new then redis.call('PEXPIRE', key, ttl) end
  end
elseif not is_allowed and (moved_sum or is_preface_moved) then
  local state
  if moved_sum then
    local newest = math.floor(now / moved_width)
    head = struct.pack('>I8I8I4I4I8I4', now, moved_width, moved_sum, moved_sum, newest, 0)
    state = head .. string.rep('\0', 256)
  else
    state = redis.call('GETRANGE', key, base, -1)
  end
  local ttl = math.ceil((math.max(ends, kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
