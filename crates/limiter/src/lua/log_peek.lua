-- log_peek.lua: what a check of `cost` cells answers if nothing is spent.
-- leaves   cells left and reset_after as they are, without the cost
-- writes   nothing
is_allowed = too_many == 0 and blocked <= now
if not left then
  left, retry, reset = math.max(0, max - live), until_gone(too_many), until_gone(live)
end
