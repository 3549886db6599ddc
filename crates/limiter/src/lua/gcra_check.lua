-- gcra_check.lua: spend `cost` cells of one quota, atomically; between gcra.lua and gcra_peek.lua,
-- which answers if nothing is spent.
-- denied   debits nothing, and writes nothing unless the state is from the future, so a flood of
--          refusals replicates nothing
if wait == 0 and cost > 0 then
  debt = debt + cost * interval
  local state = struct.pack('>I8I8I8', now + debt, now, interval)
  redis.call('SET', key, state, 'PX', string.format('%.0f', math.ceil(debt / 1000)))
  return { 1, math.floor((span - debt) / interval), 0, debt }
end
if wait > 0 and moved_tat then
  local state = struct.pack('>I8I8I8', moved_tat, now, moved_interval)
  redis.call('SET', key, state, 'PX', string.format('%.0f', math.ceil((moved_tat - now) / 1000)))
end
