-- fixed_merge.lua: make good what a new primary has missed, as a survivor knows it; between settle.lua
-- and fixed_peek.lua, which answers. The larger of two counts is the right one, and never both: what
-- the server knows is a part of what the survivor knows. A key has one count at a time, so the later
-- of two ends is the end of both.
-- ARGV[3]  0: fixed.lua finds out where the quota stands, and no more
-- ARGV[4]  µs, until the window of the survivor ends, and half a window or a minute more, whichever is
--          less: for clocks that are behind;  [5] cells spent in it
-- ARGV[6]  generation and [7] refunds of the key, as the survivor knows them
-- returns  as a peek, always with the preface
-- writes   only if the survivor knows more: of what was spent in a window that is not over by this
--          server's clock, or of a reset
is_partial = true
local owed, of, since = tonumber(ARGV[4]), tonumber(ARGV[6]), refunds - tonumber(ARGV[7])
local is_newer = of > generation
-- A debt from before a reset counts for nothing. What was given back since is no debt any more.
if is_newer or since < 0 then since = 0 end
local cells, half = math.min(tonumber(ARGV[5]) - since, max), math.floor(window / 2)
-- The boundary that is nearest to the end of the survivor's window, which is told as a time from now:
-- late by its trips, and by another clock. No count ends later than one that a clock found which had
-- gone back.
local upto = math.floor((now + owed - math.min(half, 60000000) + half) / window) * window
upto = math.min(upto, math.ceil((now + window) / window) * window)
local is_more = cells > 0 and upto > now and (cells > sum or upto > lapses)
if of >= generation and owed > 0 and (is_more or is_newer) then
  local state = ''
  if is_more then
    sum, closes = math.max(sum, cells), math.max(closes, upto)
    lapses, ends = closes, kept_until(closes, window)
    state = state_of(sum)
    -- The clock that the receipts speak of may be another server's.
    life = math.max(life + 1, now)
  elseif ends > now then
    state = raw
  end
  -- Debts from before the reset live no longer than a count that is begun now.
  if is_newer then
    kept = math.max(kept, kept_until((math.floor(now / window) + 1) * window, window))
  end
  -- What was given back before the reset says nothing of debts from after it.
  if is_newer then refunds = 0 end
  generation, refunds, kept = of, math.max(refunds, tonumber(ARGV[7])), math.max(kept, ends)
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
  local ttl = math.ceil((math.max(kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
