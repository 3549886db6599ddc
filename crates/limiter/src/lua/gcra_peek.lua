-- gcra_peek.lua: what a check of `cost` cells answers if nothing is spent.
-- leaves   cells left and reset_after as they are, without the cost
-- writes   nothing
is_allowed = wait == 0 and blocked <= now
if not left then
  left = math.max(0, math.floor((span - debt) / interval))
  retry, reset = math.min(wait, ends - now), math.min(debt, ends - now)
end
