-- concurrency_judge.lua: what concurrency_acquire.lua would answer; follows concurrency.lua.
-- ARGV     as there
-- returns  as there; the permits that are left are without the cost
-- writes   nothing
local max, cost = tonumber(ARGV[1]), tonumber(ARGV[4])
local held = release(ARGV[3])
local left = math.max(0, max - sum - (held or 0))
if held or sum + cost <= max then return { 1, left, 0 } end
local rest, retry = sum, 0
for place = 0, #leases / 17 - 1 do
  rest = rest - struct.unpack('>I2', leases, place * 17 + 8)
  if rest + cost <= max then
    retry = ends_of(place) - now
    break
  end
end
return { 0, left, retry }
