-- fixed_peek.lua: what a check of `cost` cells answers if nothing is spent.
-- leaves   cells left and reset_after as they are, without the cost
-- writes   nothing
is_allowed = is_fitting and blocked <= now
if not left then
  left, reset = math.max(0, max - sum), lapses - now
  retry = is_fitting and 0 or reset
end
