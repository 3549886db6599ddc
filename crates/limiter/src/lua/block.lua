-- block.lua: refuse everything for a while; after settle.lua. A longer block stays as it is.
-- ARGV     the last: µs, 1..  from now
-- returns  µs until the block ends
local upto = math.max(blocked, now + tonumber(ARGV[#ARGV]))
if upto > blocked then
  blocked = upto
  local state = ''
  if ends > now then state = redis.call('GETRANGE', key, base, -1) end
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
  local ttl = math.ceil((math.max(ends, kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
return upto - now
