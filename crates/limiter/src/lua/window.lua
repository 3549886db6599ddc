-- window.lua: where one quota stands; between open.lua and settle.lua, and the verbs go on from there.
-- state    292 bytes, big-endian; absent = never used:
--          at 8      µs, when it was written
--          width 8   µs, one sub-window by the parameters it was written with
--          sum 4     cells spent in the 64 sub-windows that end with the one of `at`
--          current 4 those of them that were spent in the sub-window of `at`
--          oldest 8  index (time / width) of the oldest sub-window with any
--          first 4   what was spent in the oldest; 0 if that is the one of `at`
--          ring 256  64 counts of 4, at index % 64; 0 for the sub-window of `at`
-- ARGV[1]  µs, 1..  width of a sub-window;  [2] cells, 1..  spent at most in any 64 of them
-- ARGV[3]  cost in cells, 0..max; 0 costs nothing and is never refused
-- clock    `now`, bound by the prelude; integers, exact below 2^53
-- expiry   64 sub-windows after the one of `at`, when all that was spent has left the window; not
--          before the preface may be forgotten
-- twin     src/window.rs; tests/lua_twin.rs compares replies and states exactly
--
-- The first 36 bytes answer nearly every call. The ring is read when a sub-window with cells leaves
-- the window, and by a refusal that must wait for more than the oldest of them. Loops over it are
-- bounded whatever the key holds: a script that does not end stops the whole server.
local width, max, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local index = math.floor(now / width)
local is_used, sum, current, oldest, first = false, 0, 0, index, 0
-- The sub-window that `current` belongs to, the time at which the stored state is over, and when it
-- was written.
local was, ends, held_at = index, now, now
-- The ring as it must be written; nil while the one in the key is right.
local ring
-- What to write even if nothing is spent, because the stored state is from the future.
local moved_width, moved_sum
local is_shift = false
local head
if #raw >= 36 then
  local held
  held_at, held, sum, current, oldest, first = struct.unpack('>I8I8I4I4I8I4', raw)
  if held_at > now and (held ~= width or math.floor(held_at / held) > index) then
    -- The clock went back. What was spent stays spent, as of now. Within one sub-window nothing
    -- needs to be done, unless the sub-windows of now are others.
    held_at, current, oldest, first = now, sum, math.floor(now / held), 0
    ring, moved_width, moved_sum, is_shift = string.rep('\0', 256), held, sum, true
  end
  was = math.floor(held_at / held)
  ends = math.max(now, (was + 64) * held)
  is_used = now < ends
  if is_used and held ~= width then
    -- Other parameters: all that was spent counts as spent when it was written.
    was = math.floor(held_at / width)
    current, oldest, first, ring = sum, was, 0, string.rep('\0', 256)
    is_used, is_shift = index - was < 64, true
  end
  if not is_used then
    sum, current, oldest, first, ring, was = 0, 0, index, 0, nil, index
  elseif oldest <= index - 64 then
    -- Sub-windows with cells have left the window.
    ring = redis.call('GETRANGE', key, base + 36, -1)
    for gone = math.max(oldest, was - 63), index - 64 do
      local place = gone % 64 * 4
      local cells = struct.unpack('>I4', ring, place + 1)
      if cells > 0 then
        sum, ring = sum - cells, ring:sub(1, place) .. '\0\0\0\0' .. ring:sub(place + 5)
      end
    end
    oldest, first = was, 0
    for kept_index = index - 63, was - 1 do
      local cells = struct.unpack('>I4', ring, kept_index % 64 * 4 + 1)
      if cells > 0 then
        oldest, first = kept_index, cells
        break
      end
    end
  end
end
local is_fitting = cost == 0 or sum + cost <= max
