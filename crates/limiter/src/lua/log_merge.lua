-- log_merge.lua: make good what a new primary has missed, as a survivor knows it; between settle.lua
-- and log_peek.lua, which answers. What the server knows of itself is a part of what the survivor
-- knows. The cells that are missing count as spent when the survivor knows the last to have been,
-- which is not before they were. So do those that others have added before, as far as they are the
-- same: of both numbers the larger, at the later of both times, or who comes first, and knew less
-- lately, would have cells come back too soon. They are known by their time, a window before `life`.
-- ARGV[3]  0: log.lua finds out where the quota stands, and no more
-- ARGV[4]  µs, until all that the survivor knows of has left the window;  [5] cells of it
-- ARGV[6]  generation and [7] refunds of the key, as the survivor knows them
-- returns  as a peek, always with the preface
-- writes   only if the survivor knows more: of what was spent, or of a reset
is_partial = true
local owed, of, since = tonumber(ARGV[4]), tonumber(ARGV[6]), refunds - tonumber(ARGV[7])
local is_newer = of > generation
-- A debt from before a reset counts for nothing. What was given back since is no debt any more.
if is_newer or since < 0 then since = 0 end
cells, gone = cells:sub(gone * 7 + 1), 0
-- Cells that others have added before: of the time `prior`, from the one after `first` to `upto`.
local prior = life - window
local first, upto = spent_by(prior - 1), spent_by(prior)
if is_newer and live > 0 then
  -- Cells from before the reset are no part of what the survivor knows.
  prior, first, upto = math.max(prior, time_of(live - 1)), 0, live
end
-- The oldest stand for cells whose refund was lost: they are no part of it either.
local refunded = is_newer and 0 or math.max(0, tonumber(ARGV[7]) - refunds)
local older = math.min(refunded, first)
local newer = math.min(refunded - older, live - upto)
local added, spent_at = upto - first, now + owed - window
local own = live - added - older - newer
local lacking = math.min(tonumber(ARGV[5]) - since, max) - own
local is_more = lacking > added or lacking > 0 and spent_at > prior or is_newer and added > 0
if of >= generation and owed > 0 and (is_more or is_newer) then
  local state = ''
  if is_more then
    spent_at = math.max(0, math.min(now, math.max(spent_at, prior + 1)))
    lacking = math.max(lacking, added)
    cells = cells:sub(older * 7 + 1, first * 7) .. cells:sub((upto + newer) * 7 + 1)
    local place = spent_by(spent_at) * 7
    local spent = struct.pack('>I7', spent_at):rep(lacking)
    cells, live = cells:sub(1, place) .. spent .. cells:sub(place + 1), own + lacking
    ends = time_of(live - 1) + window
    state = struct.pack('>I8', window) .. cells
    -- The clock that the receipts speak of may be another server's.
    life = math.max(life + 1, spent_at + window)
  elseif ends > now then
    state = raw
  end
  -- Debts from before the reset live no longer than a whole window.
  if is_newer then kept = math.max(kept, now + window) end
  -- What was given back before the reset says nothing of debts from after it.
  if is_newer then refunds = 0 end
  generation, refunds, kept = of, math.max(refunds, tonumber(ARGV[7])), math.max(kept, ends)
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
  local ttl = math.ceil((math.max(kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
