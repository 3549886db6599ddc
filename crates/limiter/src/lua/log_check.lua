-- log_check.lua: spend `cost` cells of one quota, atomically; before log_peek.lua, which answers if
-- nothing is spent.
-- denied   debits nothing, and writes nothing unless the state is from the future, so a flood of
--          refusals replicates nothing
is_allowed = too_many == 0 and blocked <= now
if is_allowed and cost > 0 then
  left, retry, reset = max - live - cost, 0, window
  local spent = struct.pack('>I7', now):rep(cost)
  local state = struct.pack('>I8', window) .. cells:sub(gone * 7 + 1) .. spent
  local ttl = math.ceil(math.max(window, kept - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
elseif not is_allowed and (moved or is_preface_moved) then
  local ttl = math.ceil((math.max(ends, kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. (moved or raw), 'PX', string.format('%.0f', ttl))
end
