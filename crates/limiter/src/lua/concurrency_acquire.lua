-- concurrency_acquire.lua: take a lease, atomically; follows concurrency.lua.
-- ARGV[1]  permits, 1..1024;  [2] µs, a lease;  [3] id, 8 bytes;  [4] cost, 1..permits
-- returns  { granted 0|1, permits left, retry_after µs: when enough leases have ended }
-- again    an id that has a lease keeps it, renewed, and is not counted twice
-- denied   writes nothing unless the clock went back
local max, lease, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local held = release(ARGV[3])
if held or sum + cost <= max then
  cost = held or cost
  local before = ended_by(now + lease) * 17
  local new = struct.pack('>I7I2', now + lease, cost) .. ARGV[3]
  leases, sum = leases:sub(1, before) .. new .. leases:sub(before + 1), sum + cost
  longest = math.max(longest, lease)
  write()
  return { 1, math.max(0, max - sum), 0 }
end
if is_moved then write() end
local left, retry = sum, 0
for place = 0, #leases / 17 - 1 do
  left = left - struct.unpack('>I2', leases, place * 17 + 8)
  if left + cost <= max then
    retry = ends_of(place) - now
    break
  end
end
return { 0, math.max(0, max - sum), retry }
