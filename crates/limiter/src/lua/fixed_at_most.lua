-- fixed_at_most.lua: as many of `cost` cells as are left; between settle.lua and fixed_check.lua. If
-- none are, it is one cell that is refused.
is_partial = true
cost = math.min(cost, math.max(1, max - sum))
is_fitting = sum + cost <= max
