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
-- the window, and by a refusal that must wait for more than the oldest of them.
local width, max, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local HEAD, HEAD_BYTES, SLOTS = '>I8I8I4I4I8I4', 36, 64
local key = KEYS[1]
local index = math.floor(now / width)

local is_used = false
local sum, current, oldest, first = 0, 0, index, 0
-- The sub-window that `current` belongs to, and the time at which the stored state is over.
local was, lapses = index, now
-- The ring as it must be written; nil while the one in the key is right.
local ring
-- The state to write even if nothing is spent, because the stored one is from the future.
local moved

local function count(slot)
  return (struct.unpack('>I4', ring, slot % SLOTS * 4 + 1))
end

local function with_count(slot, cells)
  local place = slot % SLOTS * 4
  return ring:sub(1, place) .. struct.pack('>I4', cells) .. ring:sub(place + 5)
end

local function save(at, sub, head_sum, head_current, head_oldest, head_first, head_ring)
  local head = struct.pack(HEAD, at, sub, head_sum, head_current, head_oldest, head_first)
  local ttl = math.ceil(((math.floor(at / sub) + SLOTS) * sub - at) / 1000)
  redis.call('SET', key, head .. head_ring, 'PX', string.format('%.0f', ttl))
end

local function empty_ring()
  return string.rep('\0', SLOTS * 4)
end

local head = redis.call('GETRANGE', key, 0, HEAD_BYTES - 1)
if #head == HEAD_BYTES then
  local at, held
  at, held, sum, current, oldest, first = struct.unpack(HEAD, head)
  if at > now and (held ~= width or math.floor(at / held) > index) then
    -- The clock went back. What was spent stays spent, as of now. Within one sub-window nothing
    -- needs to be done, unless the sub-windows of now are others.
    at, current, oldest, first, ring = now, sum, math.floor(now / held), 0, empty_ring()
    moved = { held, sum }
  end
  was = math.floor(at / held)
  lapses = (was + SLOTS) * held
  is_used = now < lapses
  if is_used and held ~= width then
    -- Other parameters: all that was spent counts as spent when it was written.
    was = math.floor(at / width)
    current, oldest, first, ring = sum, was, 0, empty_ring()
    is_used = index - was < SLOTS
  end
  if not is_used then
    sum, current, oldest, first, ring, was, lapses = 0, 0, index, 0, nil, index, now
  elseif oldest <= index - SLOTS then
    -- Sub-windows with cells have left. Loops are bounded, whatever the key holds: a script that
    -- does not end stops the whole server.
    ring = redis.call('GETRANGE', key, HEAD_BYTES, -1)
    for slot = math.max(oldest, was - SLOTS + 1), index - SLOTS do
      local cells = count(slot)
      if cells > 0 then
        sum, ring = sum - cells, with_count(slot, 0)
      end
    end
    oldest, first = was, 0
    for slot = index - SLOTS + 1, was - 1 do
      local cells = count(slot)
      if cells > 0 then
        oldest, first = slot, cells
        break
      end
    end
  end
end
local is_allowed = cost == 0 or sum + cost <= max

-- How long until enough has left the window.
local function wait()
  local left = sum - (oldest == was and current or first)
  local last = oldest
  if left + cost > max then
    ring = ring or redis.call('GETRANGE', key, HEAD_BYTES, -1)
    for slot = math.max(oldest + 1, was - SLOTS + 1), was do
      left, last = left - (slot == was and current or count(slot)), slot
      if left + cost <= max then break end
    end
  end
  return math.min((last + SLOTS) * width, lapses) - now
end

-- The answer if nothing is spent.
local function unchanged()
  local reset = is_used and math.min((was + SLOTS) * width, lapses) - now or 0
  return { is_allowed and 1 or 0, math.max(0, max - sum), is_allowed and 0 or wait(), reset }
end
