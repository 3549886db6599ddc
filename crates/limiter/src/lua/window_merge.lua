-- window_merge.lua: what a new primary has missed; between merge_open.lua and merge_close.lua. What the
-- server knows of itself is a part of what the survivor knows. The cells that are missing count as spent
-- when the survivor knows the last to have been, which is not before they were. So do those that others
-- have added before, as far as they are the same: of both numbers the larger, at the later of both
-- times, or who comes first, and knew less lately, would have cells come back too soon. They are known
-- by their sub-window, which leaves the window at `life`.

-- Takes cells out of a sub-window that has as many.
local function take(from, cells)
  sum = sum - cells
  if from == was then
    current = current - cells
    return
  end
  local slot = from % 64 * 4
  local rest = struct.unpack('>I4', ring, slot + 1) - cells
  ring = ring:sub(1, slot) .. struct.pack('>I4', rest) .. ring:sub(slot + 5)
  if from == oldest then
    first = rest
    while first == 0 and oldest < was do
      oldest = oldest + 1
      if oldest < was then first = struct.unpack('>I4', ring, oldest % 64 * 4 + 1) end
    end
  end
end

-- What others have added before stands in the sub-window `prior`.
local prior, added = math.floor(life / width) - 64, 0
if is_used and prior == was then
  added = current
elseif is_used and prior > index - 64 and prior < was then
  ring = ring or redis.call('GETRANGE', key, base + 36, -1)
  added = struct.unpack('>I4', ring, prior % 64 * 4 + 1)
end
if is_newer and is_used then
  -- Cells from before the reset are no part of what the survivor knows.
  prior, added = math.max(prior, was), sum
end
-- The oldest stand for cells whose refund was lost: they are no part of it either.
local lost = is_newer and 0 or math.max(0, refunded - refunds)
lost = math.min(lost, sum - added)
local missing = math.min(owed_cells - since, max) - (sum - added - lost)
local place = math.min(index, math.ceil((now + owed) / width) - 64)
local is_more = missing > added or missing > 0 and place > prior or is_newer and added > 0
if is_owed and is_more then
  place, missing = math.min(index, math.max(place, prior)), math.max(missing, added)
  ring = ring or (is_used and redis.call('GETRANGE', key, base + 36, -1))
  if sum == added + lost then
    -- The server knows nothing of itself.
    is_used, ring, sum, current = true, string.rep('\0', 256), 0, 0
    was, oldest, first, held_at = place, place, 0, math.min(now, (place + 1) * width - 1)
  else
    if added > 0 then take(prior, added) end
    -- The oldest sub-window may be empty: that of a call which was given back.
    for _ = 1, 64 do
      if lost == 0 then break end
      local cells = math.min(lost, oldest == was and current or first)
      take(oldest, cells)
      lost = lost - cells
    end
  end
  if place > was then
    -- A sub-window begins, so the count of the last one moves from the head to the ring.
    if oldest == was then first = current end
    local slot = was % 64 * 4
    ring = ring:sub(1, slot) .. struct.pack('>I4', current) .. ring:sub(slot + 5)
    was, current, held_at = place, 0, math.min(now, (place + 1) * width - 1)
  end
  sum = sum + missing
  if place == was then
    current = current + missing
  else
    local slot = place % 64 * 4
    local cells = struct.unpack('>I4', ring, slot + 1) + missing
    ring = ring:sub(1, slot) .. struct.pack('>I4', cells) .. ring:sub(slot + 5)
    if place <= oldest then oldest, first = place, cells end
  end
  ends = (was + 64) * width
  merged = struct.pack('>I8I8I4I4I8I4', held_at, width, sum, current, oldest, first) .. ring
  begun = math.max(life + 1, (place + 64) * width)
end
local debts_end = (index + 64) * width
