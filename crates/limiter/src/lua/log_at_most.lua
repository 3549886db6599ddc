-- log_at_most.lua: as many of `cost` cells as are left; between settle.lua and log_check.lua. If none
-- are, it is one cell that is refused.
is_partial = true
cost = math.min(cost, math.max(1, max - live))
too_many = math.max(0, live + cost - max)
