-- bucket_merge.lua: make good what a new primary has missed, as a survivor knows it; between settle.lua
-- and bucket_peek.lua, which answers. The larger of two deficits is the right one: each includes all
-- that was taken before it, so several survivors in any order leave what the best of them knows.
-- ARGV[4]  0: bucket.lua finds out where the quota stands, and no more
-- ARGV[5]  µs, until all that the survivor knows of is earned back;  [6] tokens that were missing at
--          its last answer: no more are missing now
-- ARGV[7]  generation and [8] refunds of the key, as the survivor knows them
-- returns  as a peek, always with the preface
-- writes   only if the survivor knows more: of what was taken, or of a reset
is_partial = true
local owed, of, since = tonumber(ARGV[5]), tonumber(ARGV[7]), refunds - tonumber(ARGV[8])
local is_newer = of > generation
-- A debt from before a reset counts for nothing. What was given back since is no debt any more.
if is_newer or since < 0 then since = 0 end
owed = math.min(math.max(0, owed - since), time_of(burst, 0, gain, token))
-- What is earned in that time: tokens, and parts of one more.
local most, parts = math.min(tonumber(ARGV[6]), burst), owed % token * gain
local tokens = math.floor(owed / token) * gain + math.floor(parts / token)
parts = parts % token
-- What is missing: tokens, the last of which has parts.
if tokens >= most then
  tokens, parts = most, 0
elseif parts > 0 then
  tokens, parts = tokens + 1, token - parts
end
local is_more = tokens > missing or tokens == missing and parts < earned
if of >= generation and (is_more or is_newer and owed > 0) then
  local state = ''
  if is_more then
    missing, earned = tokens, parts
    ends = now + time_of(missing, earned, gain, token)
    state = state_of(missing, earned)
    -- The clock that the receipts speak of may be another server's.
    life = math.max(life + 1, now)
  elseif ends > now then
    state = raw
  end
  -- Debts from before the reset live no longer than a whole burst.
  if is_newer then kept = math.max(kept, now + time_of(burst, 0, gain, token)) end
  -- What was given back before the reset says nothing of debts from after it.
  if is_newer then refunds = 0 end
  generation, refunds, kept = of, math.max(refunds, tonumber(ARGV[8])), math.max(kept, ends)
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
  local ttl = math.ceil((math.max(kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
