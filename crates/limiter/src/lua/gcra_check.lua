-- gcra_check.lua: spend `cost` cells of one quota, atomically; follows gcra.lua.
-- denied   debits nothing, and writes nothing unless the state is from the future, so a flood of
--          refusals replicates nothing
if wait > 0 then
  if moved then save(moved[1], moved[2]) end
  return unchanged()
end
if cost == 0 then return unchanged() end
debt = debt + cost * interval
save(now + debt, interval)
return { 1, math.floor((span - debt) / interval), 0, debt }
