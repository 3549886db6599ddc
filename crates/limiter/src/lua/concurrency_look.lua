-- concurrency_look.lua: how much is held; follows concurrency.lua.
-- returns  the sum of the costs
-- writes   nothing
return sum
