-- concurrency.lua: who holds one key; the verbs, concurrency_*.lua, go on from here.
-- KEYS[1]  string: longest 8, sum 2, then for each lease ends 7, cost 2, id 8; big-endian, µs;
--          absent = nobody holds it
--          longest = the longest lease that any of those here was given; sum of the costs; the
--          first to end comes first
-- clock    `now`, bound by the prelude; integers, exact below 2^53
-- expiry   when the last lease ends
-- twin     src/concurrency/state.rs; tests/concurrency_twin.rs compares replies and states exactly
local key, leases, sum, longest = KEYS[1], '', 0, 0
-- Whether leases from before the clock went back were cut down, which must be written.
local is_moved = false

-- When a lease ends; the first is 0.
local function ends_of(lease)
  return (struct.unpack('>I7', leases, lease * 17 + 1))
end

-- How many leases end at a time or before it, found by halving.
local function ended_by(time)
  local below, above = 0, #leases / 17
  while below < above do
    local middle = math.floor((below + above) / 2)
    if ends_of(middle) <= time then below = middle + 1 else above = middle end
  end
  return below
end

-- Takes the lease of `id` away, and returns what it cost; nil if it has none.
local function release(id)
  local found = leases:find(id, 1, true)
  while found and found % 17 ~= 10 do
    -- Bytes of two fields that look like it.
    found = leases:find(id, found + 1, true)
  end
  if not found then return nil end
  local cost = struct.unpack('>I2', leases, found - 2)
  leases, sum = leases:sub(1, found - 10) .. leases:sub(found + 8), sum - cost
  return cost
end

local function write()
  if leases == '' then
    redis.call('DEL', key)
  else
    local ttl = math.ceil((ends_of(#leases / 17 - 1) - now) / 1000)
    local state = struct.pack('>I8I2', longest, sum) .. leases
    redis.call('SET', key, state, 'PX', string.format('%.0f', ttl))
  end
end

local raw = redis.call('GET', key)
if raw and #raw > 10 and #raw % 17 == 10 then
  longest, sum = struct.unpack('>I8I2', raw)
  leases = raw:sub(11)
  local kept = ended_by(now + longest)
  if kept < #leases / 17 then
    -- The clock went back. Nobody was given more than that from now.
    local parts = { leases:sub(1, kept * 17) }
    for lease = kept, #leases / 17 - 1 do
      parts[#parts + 1] = struct.pack('>I7', now + longest) .. leases:sub(lease * 17 + 8, lease * 17 + 17)
    end
    leases, is_moved = table.concat(parts), true
  end
  local gone = ended_by(now)
  for lease = 0, gone - 1 do sum = sum - struct.unpack('>I2', leases, lease * 17 + 8) end
  leases = leases:sub(gone * 17 + 1)
  if leases == '' then longest = 0 end
end
