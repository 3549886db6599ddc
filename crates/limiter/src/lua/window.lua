-- window.lua: where one quota stands; window_check.lua and window_peek.lua go on from here.
-- KEYS[1]  string of 292 bytes, big-endian; absent = never used:
--          at 8      µs, when it was written
--          width 8   µs, one sub-window by the parameters it was written with
--          sum 4     cells spent in the 64 sub-windows that end with the one of `at`
--          current 4 those of them that were spent in the sub-window of `at`
--          oldest 8  index (time / width) of the oldest sub-window with any
--          first 4   what was spent in the oldest; 0 if that is the one of `at`
--          ring 256  64 counts of 4, at index % 64; 0 for the sub-window of `at`
-- ARGV[1]  µs, 1..  width of a sub-window;  [2] cells, 1..  spent at most in any 64 of them
-- ARGV[3]  cost in cells, 0..max; 0 costs nothing and is never refused
-- returns  { allowed 0|1, cells left, retry_after µs, reset_after µs }
-- clock    `now`, bound by the prelude; integers, exact below 2^53
-- expiry   64 sub-windows after the one of `at`, when all that was spent has left the window
-- twin     src/window.rs; tests/lua_twin.rs compares replies and states exactly
--
-- The first 36 bytes answer nearly every call. The ring is read when a sub-window with cells leaves
-- the window, and by a refusal that must wait for more than the oldest of them. Loops over it are
-- bounded whatever the key holds: a script that does not end stops the whole server.
local width, max, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local key, index = KEYS[1], math.floor(now / width)
local is_used, sum, current, oldest, first = false, 0, 0, index, 0
-- The sub-window that `current` belongs to, and the time at which the stored state is over.
local was, lapses = index, now
-- The ring as it must be written; nil while the one in the key is right.
local ring
-- What to write even if nothing is spent, because the stored state is from the future.
local moved_width, moved_sum
local head = redis.call('GETRANGE', key, 0, 35)
if #head == 36 then
  local at, held
  at, held, sum, current, oldest, first = struct.unpack('>I8I8I4I4I8I4', head)
  if at > now and (held ~= width or math.floor(at / held) > index) then
    -- The clock went back. What was spent stays spent, as of now. Within one sub-window nothing
    -- needs to be done, unless the sub-windows of now are others.
    at, current, oldest, first = now, sum, math.floor(now / held), 0
    ring, moved_width, moved_sum = string.rep('\0', 256), held, sum
  end
  was = math.floor(at / held)
  lapses = (was + 64) * held
  is_used = now < lapses
  if is_used and held ~= width then
    -- Other parameters: all that was spent counts as spent when it was written.
    was = math.floor(at / width)
    current, oldest, first, ring = sum, was, 0, string.rep('\0', 256)
    is_used = index - was < 64
  end
  if not is_used then
    sum, current, oldest, first, ring, was, lapses = 0, 0, index, 0, nil, index, now
  elseif oldest <= index - 64 then
    -- Sub-windows with cells have left the window.
    ring = redis.call('GETRANGE', key, 36, -1)
    for gone = math.max(oldest, was - 63), index - 64 do
      local place = gone % 64 * 4
      local cells = struct.unpack('>I4', ring, place + 1)
      if cells > 0 then
        sum, ring = sum - cells, ring:sub(1, place) .. '\0\0\0\0' .. ring:sub(place + 5)
      end
    end
    oldest, first = was, 0
    for kept = index - 63, was - 1 do
      local cells = struct.unpack('>I4', ring, kept % 64 * 4 + 1)
      if cells > 0 then
        oldest, first = kept, cells
        break
      end
    end
  end
end
local is_allowed = cost == 0 or sum + cost <= max
