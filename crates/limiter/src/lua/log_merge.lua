-- log_merge.lua: make good what a new primary has missed, as a survivor knows it; between settle.lua
-- and log_peek.lua, which answers. The larger of two numbers of cells is the right one, and never
-- both: what the server knows is a part of what the survivor knows. The cells that are missing count
-- as spent when the survivor knows the last to have been, which is not before they were.
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
local lacking = math.min(tonumber(ARGV[5]) - since, max) - live
if of >= generation and owed > 0 and (lacking > 0 or is_newer) then
  local state = ''
  if lacking > 0 then
    cells, gone = cells:sub(gone * 7 + 1), 0
    local spent_at = math.max(0, math.min(now, now + owed - window))
    local upto = spent_by(spent_at) * 7
    local spent = struct.pack('>I7', spent_at):rep(lacking)
    cells, live = cells:sub(1, upto) .. spent .. cells:sub(upto + 1), live + lacking
    ends = time_of(live - 1) + window
    state = struct.pack('>I8', window) .. cells
    -- The clock that the receipts speak of may be another server's.
    if not is_shift then life = math.max(life + 1, now) end
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
