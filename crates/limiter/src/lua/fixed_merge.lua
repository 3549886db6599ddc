-- fixed_merge.lua: what a new primary has missed; between merge_open.lua and merge_close.lua. The larger
-- of two counts is the right one, and never both: what the server knows is a part of what the survivor
-- knows. A key has one count at a time, so the later of two ends is the end of both. Nothing is missing
-- of a window that is over by this server's clock.
-- owed     until the window of the survivor ends, and half a window or a minute more, whichever is less:
--          for clocks that are behind
local missed, half = math.min(owed_cells - since, max), math.floor(window / 2)
-- The boundary that is nearest to the end of the survivor's window, which is told as a time from now:
-- late by its trips, and by another clock. No count ends later than one that a clock found which had
-- gone back.
local upto = math.floor((now + owed - math.min(half, 60000000) + half) / window) * window
upto = math.min(upto, math.ceil((now + window) / window) * window)
local is_more = missed > 0 and upto > now and (missed > sum or upto > lapses)
if is_owed and is_more then
  sum, closes = math.max(sum, missed), math.max(closes, upto)
  lapses, ends = closes, kept_until(closes, window)
  merged = state_of(sum)
end
local debts_end = kept_until((math.floor(now / window) + 1) * window, window)
