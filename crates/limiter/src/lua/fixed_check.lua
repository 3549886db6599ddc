-- fixed_check.lua: spend `cost` cells of one quota, atomically; between fixed.lua and
-- fixed_peek.lua, which answers if nothing is spent.
-- denied   debits nothing, and writes nothing unless the state is from the future, so a flood of
--          refusals replicates nothing
if is_allowed and cost > 0 then
  write(ends, window, sum + cost)
  return { now, max - sum - cost, 0, ends - now }
end
if not is_allowed and moved_sum then write(moved_ends, moved_window, moved_sum) end
