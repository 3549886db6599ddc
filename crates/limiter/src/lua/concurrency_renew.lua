-- concurrency_renew.lua: renew the leases of one process, atomically; follows concurrency.lua.
-- ARGV[1]  permits, 1..1024;  [2] µs, a lease;  [3] for each lease cost 2, id 8; big-endian
-- returns  string of one byte per lease: '1' if it is held now, '0' if not
-- absent   a lease that is not here is taken anew if there is room: the server has restarted, or
--          answered nobody for too long
local max, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local ends, renewed, replies = struct.pack('>I7', now + lease), {}, {}
for place = 1, #ARGV[3], 10 do
  local id, cost = ARGV[3]:sub(place + 2, place + 9), struct.unpack('>I2', ARGV[3], place)
  local held = release(id)
  if held or sum + cost <= max then
    cost = held or cost
    sum = sum + cost
    renewed[#renewed + 1] = ends .. struct.pack('>I2', cost) .. id
    replies[#replies + 1] = '1'
  else
    replies[#replies + 1] = '0'
  end
end
if #renewed > 0 then
  local before = ended_by(now + lease) * 17
  leases = leases:sub(1, before) .. table.concat(renewed) .. leases:sub(before + 1)
  longest = math.max(longest, lease)
  write()
elseif is_moved then
  write()
end
return table.concat(replies)
