-- gcra_at_most.lua: as many of `cost` cells as are left; between settle.lua and gcra_check.lua. If none
-- are, it is one cell that is refused.
is_partial = true
cost = math.min(cost, math.max(1, math.floor((span - debt) / interval)))
wait = math.max(0, debt + cost * interval - span)
