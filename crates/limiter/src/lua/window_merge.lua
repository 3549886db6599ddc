-- window_merge.lua: make good what a new primary has missed, as a survivor knows it; between settle.lua
-- and window_peek.lua, which answers. The larger of two sums is the right one, and never both: what
-- the server knows is a part of what the survivor knows. The cells that are missing count as spent
-- when the survivor knows the last to have been, which is not before they were.
-- ARGV[3]  0: window.lua finds out where the quota stands, and no more
-- ARGV[4]  µs, until all that the survivor knows of has left the window;  [5] cells of it
-- ARGV[6]  generation and [7] refunds of the key, as the survivor knows them
-- returns  as a peek, always with the preface
-- writes   only if the survivor knows more: of what was spent, or of a reset
is_partial = true
local owed, of, since = tonumber(ARGV[4]), tonumber(ARGV[6]), refunds - tonumber(ARGV[7])
local is_newer = of > generation
-- A debt from before a reset counts for nothing. What was given back since is no debt any more.
if is_newer or since < 0 then since = 0 end
local missing = math.min(tonumber(ARGV[5]) - since, max) - sum
if of >= generation and owed > 0 and (missing > 0 or is_newer) then
  local state = ''
  if missing > 0 then
    local place = math.min(index, math.ceil((now + owed) / width) - 64)
    ring = ring or (is_used and redis.call('GETRANGE', key, base + 36, -1)) or string.rep('\0', 256)
    if not is_used then
      was, oldest, is_used = place, place, true
      held_at = math.min(now, (place + 1) * width - 1)
    elseif place > was then
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
    state = struct.pack('>I8I8I4I4I8I4', held_at, width, sum, current, oldest, first) .. ring
    -- The clock that the receipts speak of may be another server's.
    if not is_shift then life = math.max(life + 1, now) end
  elseif ends > now then
    state = redis.call('GETRANGE', key, base, -1)
  end
  -- Debts from before the reset live no longer than a whole window.
  if is_newer then kept = math.max(kept, (index + 64) * width) end
  -- What was given back before the reset says nothing of debts from after it.
  if is_newer then refunds = 0 end
  generation, refunds, kept = of, math.max(refunds, tonumber(ARGV[7])), math.max(kept, ends)
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
  local ttl = math.ceil((math.max(kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
