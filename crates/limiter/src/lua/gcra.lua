-- gcra.lua: where one quota stands; gcra_check.lua and gcra_peek.lua go on from here.
-- KEYS[1]  string of 24 bytes: tat 8, at 8, interval 8; big-endian, µs; absent = never used
--          tat = when all spent cells are earned back, at = when it was written, interval = one
--          cell by the parameters it was written with
-- ARGV[1]  µs, 1..  interval that earns back one cell;  [2] burst in cells, 1..
-- ARGV[3]  cost in cells, 0..burst; 0 costs nothing and is never refused
-- returns  { allowed 0|1, cells left, retry_after µs, reset_after µs }
-- clock    `now`, bound by the prelude; integers, exact below 2^53
-- expiry   at tat, when the bucket is full again: no key and a full bucket mean the same
-- twin     src/gcra.rs; tests/lua_twin.rs compares replies and states exactly
local interval, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
-- Ten years: longer than any quota takes to earn all of its cells back (quota.rs).
local SPAN_MAX = 315360000000000
local STATE = '>I8I8I8'
local key = KEYS[1]
local tat, lapses = now, now
-- The state to write even if nothing is spent, because the stored one is from the future.
local moved
local raw = redis.call('GET', key)
if raw and #raw == 24 then
  local held_tat, at, held = struct.unpack(STATE, raw)
  if at > now then
    -- The clock went back. What was spent stays spent, as of now.
    held_tat, at = held_tat - at + now, now
    moved = { held_tat, held }
  end
  if held_tat > now then
    tat, lapses = held_tat, held_tat
    if held ~= interval then
      -- Other parameters: the cells stay spent, and are earned back by the new ones since then.
      local spent = math.ceil((held_tat - at) / held)
      tat = math.max(now, at + math.min(spent * interval, SPAN_MAX))
    end
  end
end
local debt, span = tat - now, interval * burst
-- How long until the cost fits; 0 or less: now.
local wait = debt + cost * interval - span
if cost == 0 then wait = 0 end

local function save(tat_us, interval_us)
  local ttl = string.format('%.0f', math.max(1, math.ceil((tat_us - now) / 1000)))
  redis.call('SET', key, struct.pack(STATE, tat_us, now, interval_us), 'PX', ttl)
end

-- The answer if nothing is spent.
local function unchanged()
  local left = math.max(0, math.floor((span - debt) / interval))
  local allowed = wait > 0 and 0 or 1
  return { allowed, left, math.min(math.max(0, wait), lapses - now), math.min(debt, lapses - now) }
end
