-- gcra_merge.lua: make good what a new primary has missed, as a survivor knows it; between settle.lua
-- and gcra_peek.lua, which answers. The later of two arrival times is the right one: each includes all
-- that was spent before it, so several survivors in any order leave what the best of them knows.
-- ARGV[3]  0: gcra.lua finds out where the quota stands, and no more
-- ARGV[4]  µs, until all that the survivor knows of is earned back;  [5] not used
-- ARGV[6]  generation and [7] refunds of the key, as the survivor knows them
-- returns  as a peek, always with the preface
-- writes   only if the survivor knows more: of what was spent, or of a reset
is_partial = true
local owed, of, since = tonumber(ARGV[4]), tonumber(ARGV[6]), refunds - tonumber(ARGV[7])
local is_newer = of > generation
-- A debt from before a reset counts for nothing. What was given back since is no debt any more.
if is_newer or since < 0 then since = 0 end
owed = math.min(owed - since, span)
if of >= generation and (owed > debt or is_newer and owed > 0) then
  local state = ''
  if ends > now then state = raw end
  if owed > debt then
    debt = owed
    ends = now + debt
    state = struct.pack('>I8I8I8', ends, now, interval)
    -- The clock that the receipts speak of may be another server's.
    life = math.max(life + 1, now)
  end
  -- Debts from before the reset live no longer than a whole burst.
  if is_newer then kept = math.max(kept, now + span) end
  -- What was given back before the reset says nothing of debts from after it.
  if is_newer then refunds = 0 end
  generation, refunds, kept = of, math.max(refunds, tonumber(ARGV[7])), math.max(kept, ends)
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
  local ttl = math.ceil((math.max(kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
