-- gcra_peek.lua: what a check of `cost` cells answers if nothing is spent; follows gcra.lua.
-- returns  cells left and reset_after as they are, without the cost
-- writes   nothing
return {
  wait == 0 and 1 or 0,
  math.max(0, math.floor((span - debt) / interval)),
  math.min(wait, lapses - now),
  math.min(debt, lapses - now)
}
