-- window_peek.lua: what a check of `cost` cells answers if nothing is spent; follows window.lua.
-- returns  cells left and reset_after as they are, without the cost
-- writes   nothing
local retry, reset = 0, 0
if is_used then reset = math.min((was + 64) * width, lapses) - now end
if not is_allowed then
  -- Enough must leave the window, the oldest first.
  local left, last = sum - (oldest == was and current or first), oldest
  if left + cost > max then
    ring = ring or redis.call('GETRANGE', key, 36, -1)
    for slot = math.max(oldest + 1, was - 63), was do
      local cells = current
      if slot < was then cells = struct.unpack('>I4', ring, slot % 64 * 4 + 1) end
      left, last = left - cells, slot
      if left + cost <= max then break end
    end
  end
  retry = math.min((last + 64) * width, lapses) - now
end
return { is_allowed and 1 or 0, math.max(0, max - sum), retry, reset }
