-- bucket_refund.lua: give back what a call has taken, as far as time has not done so already.
-- ARGV[4]  tokens of the call;  [5] µs, when it was decided;  [6] µs, when the bucket would be full
-- ARGV[7]  refunds up to then;  [8] generation and [9] life of the key then
-- returns  what was given back, in µs that the rate takes for it, rounded up
--
-- What is missing beyond that time was taken later and is not the call's to give. Each refund since
-- then moved all that was taken by as much towards now, and the call's own part with it. Times are
-- rounded up, so the part of the last µs is taken for one part; at one part per µs that is exact.
local given = 0
if
  missing > 0
  and not is_shift
  and tonumber(ARGV[5]) <= now
  and tonumber(ARGV[8]) == generation
  and tonumber(ARGV[9]) == life
then
  local own = tonumber(ARGV[6]) - math.max(0, refunds - tonumber(ARGV[7])) - now
  local price, debt = time_of(cost, 0, gain, token), time_of(missing, earned, gain, token)
  given = math.max(0, math.min(price, own, debt))
  if given > 0 then
    -- Tokens, and parts of one more: what is earned in `own`, but the cost at most.
    local parts = (own - 1) % token * gain + 1
    local tokens = math.floor((own - 1) / token) * gain + math.floor(parts / token)
    parts = parts % token
    if tokens >= cost then tokens, parts = cost, 0 end
    missing, earned = missing - tokens, earned + parts
    if earned >= token then missing, earned = missing - 1, earned - token end
  end
end
if given > 0 then
  refunds, kept = refunds + given, math.max(kept, ends)
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
  local state = ''
  if missing > 0 then state = state_of(missing, earned) end
  local ttl = math.ceil((math.max(kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
return given
