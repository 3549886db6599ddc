-- fixed_peek.lua: what a check of `cost` cells answers if nothing is spent; follows fixed.lua.
-- returns  cells left and reset_after as they are, without the cost
-- writes   nothing
local until_lapse = lapses - now
return { is_allowed and now or 0, math.max(0, max - sum), is_allowed and 0 or until_lapse, until_lapse }
