-- bucket_at_most.lua: as many of `cost` tokens as are there; between settle.lua and bucket_check.lua. If
-- none are, it is one token that is refused.
is_partial = true
cost = math.min(cost, math.max(1, burst - missing))
needed = math.max(0, missing + cost - burst)
