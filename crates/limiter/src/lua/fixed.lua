-- fixed.lua: where one quota stands; between open.lua and settle.lua, and the verbs go on from there.
-- state    28 bytes: at 8, closes 8, window 8, sum 4; big-endian, µs; absent = never used
--          at = when it was written, closes = when the count is over, window = by the parameters it
--          was written with, sum = cells spent in it
-- ARGV[1]  µs, 1..  window;  [2] cells, 1..  spent at most in each
-- ARGV[3]  cost in cells, 0..max; 0 costs nothing and is never refused
-- clock    `now`, bound by the prelude; integers, exact below 2^53
-- expiry   a window after `closes`, but a minute at most: a clock that goes back finds the count
--          again; not before the preface may be forgotten
-- twin     src/fixed.rs; tests/lua_twin.rs compares replies and states exactly
local window, max, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local sum, closes, lapses = 0, (math.floor(now / window) + 1) * window, now
local ends, is_shift = now, false
-- What to write even if nothing is spent, because the stored state is from the future.
local moved

-- Until when a count that closes then is kept.
local function kept_until(closes_at, of_window)
  return closes_at + math.min(of_window, 60000000)
end

if #raw == 28 then
  local at, held_closes, held, held_sum = struct.unpack('>I8I8I8I4', raw)
  if math.floor(at / held) > math.floor(now / held) or held ~= window and at > now then
    -- The clock went back. What was spent stays spent, for a whole window from now at least.
    -- Within one window nothing needs to be done, unless the windows of now are others.
    at, held_closes = now, math.ceil((now + held) / held) * held
    moved, is_shift = struct.pack('>I8I8I8I4', now, held_closes, held, held_sum), true
  end
  ends = math.max(now, kept_until(held_closes, held))
  local new_closes = held_closes
  if held ~= window then
    -- Other parameters: all that was spent counts as spent when it was written.
    new_closes = (math.floor(at / window) + 1) * window
    is_shift = is_shift or ends > now
  end
  local over = math.min(new_closes, held_closes)
  if over > now then sum, closes, lapses = held_sum, new_closes, over end
end

-- What is kept of so many cells that were spent by now.
local function state_of(cells)
  return struct.pack('>I8I8I8I4', now, closes, window, cells)
end

local is_fitting = cost == 0 or sum + cost <= max
