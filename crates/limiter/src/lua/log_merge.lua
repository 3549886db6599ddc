-- log_merge.lua: what a new primary has missed; between merge_open.lua and merge_close.lua. What the
-- server knows of itself is a part of what the survivor knows. The cells that are missing count as spent
-- when the survivor knows the last to have been, which is not before they were. So do those that others
-- have added before, as far as they are the same: of both numbers the larger, at the later of both
-- times, or who comes first, and knew less lately, would have cells come back too soon. They are known
-- by their time, a window before `life`.
cells, gone = cells:sub(gone * 7 + 1), 0
-- Cells that others have added before: of the time `prior`, from the one after `first` to `upto`.
local prior = life - window
local first, upto = spent_by(prior - 1), spent_by(prior)
if is_newer and live > 0 then
  -- Cells from before the reset are no part of what the survivor knows.
  prior, first, upto = math.max(prior, time_of(live - 1)), 0, live
end
-- The oldest stand for cells whose refund was lost: they are no part of it either.
local lost = is_newer and 0 or math.max(0, refunded - refunds)
local older = math.min(lost, first)
local newer = math.min(lost - older, live - upto)
local added, spent_at = upto - first, now + owed - window
local own = live - added - older - newer
local lacking = math.min(owed_cells - since, max) - own
local is_more = lacking > added or lacking > 0 and spent_at > prior or is_newer and added > 0
if is_owed and is_more then
  spent_at = math.max(0, math.min(now, math.max(spent_at, prior + 1)))
  lacking = math.max(lacking, added)
  cells = cells:sub(older * 7 + 1, first * 7) .. cells:sub((upto + newer) * 7 + 1)
  local place = spent_by(spent_at) * 7
  local spent = struct.pack('>I7', spent_at):rep(lacking)
  cells, live = cells:sub(1, place) .. spent .. cells:sub(place + 1), own + lacking
  ends = time_of(live - 1) + window
  merged, begun = struct.pack('>I8', window) .. cells, math.max(life + 1, spent_at + window)
end
local debts_end = now + window
