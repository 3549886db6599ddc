-- bucket_peek.lua: what a check of `cost` tokens answers if none is taken; follows bucket.lua.
-- returns  tokens left and reset_after as they are, without the cost
-- writes   nothing
return {
  needed == 0 and now or 0,
  math.max(0, burst - missing),
  until_earned(needed),
  until_earned(missing)
}
