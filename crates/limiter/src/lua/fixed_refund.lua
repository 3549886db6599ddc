-- fixed_refund.lua: give back what a call has spent, while the window that counts it is under way.
-- ARGV[3]  cells of the call;  [4] µs, when it was decided;  [5] µs, when the window closes that counts it
-- ARGV[6]  not used;  [7] generation and [8] life of the key when it was decided
-- returns  cells that were given back: all or none
local given = 0
if
  not is_shift
  and tonumber(ARGV[4]) <= now
  and tonumber(ARGV[5]) == closes
  and tonumber(ARGV[7]) == generation
  and tonumber(ARGV[8]) == life
  and sum >= cost
then
  given = cost
end
if given > 0 then
  refunds, kept = refunds + given, math.max(kept, ends)
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
  local state = ''
  if sum > given then state = state_of(sum - given) end
  local ttl = math.ceil((math.max(kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
return given
