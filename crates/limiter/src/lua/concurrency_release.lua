-- concurrency_release.lua: give leases back, atomically; follows concurrency.lua.
-- ARGV[1]  the ids, 8 bytes each
-- returns  how many of them had a lease
local count = 0
for place = 1, #ARGV[1], 8 do
  if release(ARGV[1]:sub(place, place + 7)) then count = count + 1 end
end
if count > 0 or is_moved then write() end
return count
