-- window_peek.lua: what a check of `cost` cells would answer; follows window.lua, writes nothing.
-- returns  cells left and reset_after as they are, without the cost
return unchanged()
