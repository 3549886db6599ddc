-- log.lua: where one quota stands; between open.lua and settle.lua, and the verbs go on from there.
-- state    window 8, then 7 for each cell; big-endian, µs; absent = never used
--          window = by the parameters it was written with, then when each cell was spent, the
--          oldest first; the last is when it was written
-- ARGV[1]  µs, 1..  window;  [2] cells, 1..128  spent at most in any interval as long
-- ARGV[3]  cost in cells, 0..max; 0 costs nothing and is never refused
-- clock    `now`, bound by the prelude; integers, exact below 2^53
-- expiry   when the last cell is a window old; not before the preface may be forgotten
-- twin     src/log.rs; tests/lua_twin.rs compares replies and states exactly
local window, max, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local cells, gone, count, ends, is_shift = '', 0, 0, now, false
-- What to write even if nothing is spent, because the stored state is from the future.
local moved

-- When the cell was spent; the first is 0.
local function time_of(cell)
  return (struct.unpack('>I7', cells, cell * 7 + 1))
end

-- How many cells were spent at a time or before it, found by halving.
local function spent_by(time)
  local below, above = 0, #cells / 7
  while below < above do
    local middle = math.floor((below + above) / 2)
    if time_of(middle) <= time then below = middle + 1 else above = middle end
  end
  return below
end

-- open.lua reads as much as other algorithms keep.
if #raw == 85 - base then raw = raw .. redis.call('GETRANGE', key, 85, -1) end
if #raw > 8 and #raw % 7 == 1 then
  local held = struct.unpack('>I8', raw)
  cells = raw:sub(9)
  count = #cells / 7
  local last = time_of(count - 1)
  if last > now then
    -- The clock went back. What was spent stays spent, as of now.
    local past = spent_by(now)
    cells = cells:sub(1, past * 7) .. struct.pack('>I7', now):rep(count - past)
    last, moved, is_shift = now, raw:sub(1, 8) .. cells, true
  end
  ends = math.max(now, last + held)
  if held ~= window then
    -- Other parameters: all that was spent counts as spent when it was written.
    cells, is_shift = struct.pack('>I7', last):rep(count), is_shift or ends > now
  end
  gone = ends > now and spent_by(now - window) or count
end
local live = count - gone

-- The time until so many cells have left the window, the oldest first.
local function until_gone(number)
  if number == 0 then return 0 end
  return math.min(time_of(gone + number - 1) + window, ends) - now
end

-- How many cells must leave the window before the cost fits.
local too_many = 0
if cost > 0 then too_many = math.max(0, live + cost - max) end
