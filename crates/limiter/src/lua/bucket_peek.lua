-- bucket_peek.lua: what a check of `cost` tokens answers if none is taken.
-- leaves   tokens left and reset_after as they are, without the cost
-- writes   nothing
is_allowed = needed == 0 and blocked <= now
if not left then
  left = math.max(0, burst - missing)
  retry = math.min(time_of(needed, earned, gain, token), ends - now)
  reset = math.min(time_of(missing, earned, gain, token), ends - now)
end
