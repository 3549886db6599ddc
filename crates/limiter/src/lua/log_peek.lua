-- log_peek.lua: what a check of `cost` cells answers if nothing is spent; follows log.lua.
-- returns  cells left and reset_after as they are, without the cost
-- writes   nothing
return { too_many == 0 and now or 0, math.max(0, max - live), until_gone(too_many), until_gone(live) }
