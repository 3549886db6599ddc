-- gcra.lua: where one quota stands; between open.lua and settle.lua, and the verbs go on from there.
-- state    24 bytes: tat 8, at 8, interval 8; big-endian, µs; absent = never used
--          tat = when all spent cells are earned back, at = when it was written, interval = one
--          cell by the parameters it was written with
-- ARGV[1]  µs, 1..  interval that earns back one cell;  [2] burst in cells, 1..
-- ARGV[3]  cost in cells, 0..burst; 0 costs nothing and is never refused
-- clock    `now`, bound by the prelude; integers, exact below 2^53
-- expiry   at tat, when the bucket is full again: no key and a full bucket mean the same; not before
--          the preface may be forgotten
-- twin     src/gcra.rs; tests/lua_twin.rs compares replies and states exactly
local interval, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tat, ends, is_shift = now, now, false
-- What to write even if nothing is spent, because the stored state is from the future.
local moved_tat, moved_interval
if #raw == 24 then
  local held_tat, at, held = struct.unpack('>I8I8I8', raw)
  if at > now then
    -- The clock went back. What was spent stays spent, as of now.
    held_tat, at = held_tat - at + now, now
    moved_tat, moved_interval, is_shift = held_tat, held, true
  end
  if held_tat > now then
    tat, ends = held_tat, held_tat
    if held ~= interval then
      -- Other parameters: the cells stay spent, and are earned back by the new ones since then.
      -- Ten years are longer than any quota takes to earn all of its cells back (quota.rs).
      local spent = math.ceil((held_tat - at) / held)
      tat, is_shift = math.max(now, at + math.min(spent * interval, 315360000000000)), true
    end
  end
end
local debt, span = tat - now, interval * burst
-- How long until the cost fits.
local wait = 0
if cost > 0 then wait = math.max(0, debt + cost * interval - span) end
