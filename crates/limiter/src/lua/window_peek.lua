-- window_peek.lua: what a check of `cost` cells answers if nothing is spent.
-- leaves   cells left and reset_after as they are, without the cost
-- writes   nothing
is_allowed = is_fitting and blocked <= now
if not left then
  left, retry, reset = math.max(0, max - sum), 0, 0
  if is_used then reset = math.min((was + 64) * width, ends) - now end
  if not is_fitting then
    -- Enough must leave the window, the oldest first.
    local rest, last = sum - (oldest == was and current or first), oldest
    if rest + cost > max then
      ring = ring or redis.call('GETRANGE', key, base + 36, -1)
      for slot = math.max(oldest + 1, was - 63), was do
        local cells = current
        if slot < was then cells = struct.unpack('>I4', ring, slot % 64 * 4 + 1) end
        rest, last = rest - cells, slot
        if rest + cost <= max then break end
      end
    end
    retry = math.min((last + 64) * width, ends) - now
  end
end
