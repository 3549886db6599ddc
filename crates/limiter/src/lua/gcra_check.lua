-- gcra_check.lua: spend `cost` cells of one quota, atomically; before gcra_peek.lua, which answers if
-- nothing is spent.
-- denied   debits nothing, and writes nothing unless the state is from the future, so a flood of
--          refusals replicates nothing
is_allowed = wait == 0 and blocked <= now
if is_allowed and cost > 0 then
  debt = debt + cost * interval
  local state = struct.pack('>I8I8I8', now + debt, now, interval)
  local ttl = math.ceil(math.max(debt, kept - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
  left, retry, reset = math.floor((span - debt) / interval), 0, debt
elseif not is_allowed and (moved_tat or is_preface_moved) then
  local state = raw
  if moved_tat then state = struct.pack('>I8I8I8', moved_tat, now, moved_interval) end
  local ttl = math.ceil((math.max(ends, kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
