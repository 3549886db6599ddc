-- fixed.lua: where one quota stands; fixed_check.lua and fixed_peek.lua go on from here.
-- KEYS[1]  string of 28 bytes: at 8, ends 8, window 8, sum 4; big-endian, µs; absent = never used
--          at = when it was written, ends = when it is over, window = by the parameters it was
--          written with, sum = cells spent in it
-- ARGV[1]  µs, 1..  window;  [2] cells, 1..  spent at most in each
-- ARGV[3]  cost in cells, 0..max; 0 costs nothing and is never refused
-- returns  { now if allowed, else 0; cells left; retry_after µs; reset_after µs }
-- clock    `now`, bound by the prelude; integers, exact below 2^53
-- expiry   a window after `ends`, but a minute at most: a clock that goes back finds the count again
-- twin     src/fixed.rs; tests/lua_twin.rs compares replies and states exactly
local window, max, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local key, sum, ends, lapses = KEYS[1], 0, (math.floor(now / window) + 1) * window, now
-- What to write even if nothing is spent, because the stored state is from the future.
local moved_ends, moved_window, moved_sum
local raw = redis.call('GET', key)
if raw and #raw == 28 then
  local at, held_ends, held, held_sum = struct.unpack('>I8I8I8I4', raw)
  if math.floor(at / held) > math.floor(now / held) or held ~= window and at > now then
    -- The clock went back. What was spent stays spent, for a whole window from now at least.
    -- Within one window nothing needs to be done, unless the windows of now are others.
    at, held_ends = now, math.ceil((now + held) / held) * held
    moved_ends, moved_window, moved_sum = held_ends, held, held_sum
  end
  local new_ends = held_ends
  if held ~= window then
    -- Other parameters: all that was spent counts as spent when it was written.
    new_ends = (math.floor(at / window) + 1) * window
  end
  local over = math.min(new_ends, held_ends)
  if over > now then sum, ends, lapses = held_sum, new_ends, over end
end

-- Keeps so many cells until `until_us`, and for a window more, but a minute at most.
local function write(until_us, of_window, cells)
  local ttl = math.ceil((until_us + math.min(of_window, 60000000) - now) / 1000)
  local state = struct.pack('>I8I8I8I4', now, until_us, of_window, cells)
  redis.call('SET', key, state, 'PX', string.format('%.0f', ttl))
end

local is_allowed = cost == 0 or sum + cost <= max
