-- log_check.lua: spend `cost` cells of one quota, atomically; between log.lua and log_peek.lua,
-- which answers if nothing is spent.
-- denied   debits nothing, and writes nothing unless the state is from the future, so a flood of
--          refusals replicates nothing
if too_many == 0 and cost > 0 then
  local spent = struct.pack('>I7', now):rep(cost)
  local state = struct.pack('>I8', window) .. cells:sub(gone * 7 + 1) .. spent
  redis.call('SET', key, state, 'PX', string.format('%.0f', math.ceil(window / 1000)))
  return { now, max - live - cost, 0, window }
end
if too_many > 0 and moved then
  redis.call('SET', key, moved, 'PX', string.format('%.0f', math.ceil((lapses - now) / 1000)))
end
