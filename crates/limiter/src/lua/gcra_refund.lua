-- gcra_refund.lua: give back what a call has spent, as far as time has not done so already.
-- ARGV[3]  cells of the call;  [4] µs, when it was decided;  [5] µs, tat after it
-- ARGV[6]  refunds up to then;  [7] generation and [8] life of the key then
-- returns  µs of debt that were given back
--
-- What lies beyond `tat` of the call was spent later and is not its to give. Each refund since then
-- moved all that was spent by as much towards now, and the call's own part with it.
local given = 0
if
  not is_shift
  and tonumber(ARGV[4]) <= now
  and tonumber(ARGV[7]) == generation
  and tonumber(ARGV[8]) == life
then
  local own = tonumber(ARGV[5]) - math.max(0, refunds - tonumber(ARGV[6])) - now
  given = math.max(0, math.min(cost * interval, own, debt))
end
if given > 0 then
  refunds, kept = refunds + given, math.max(kept, tat)
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
  local state = ''
  if given < debt then state = struct.pack('>I8I8I8', tat - given, now, interval) end
  local ttl = math.ceil((math.max(kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
return given
