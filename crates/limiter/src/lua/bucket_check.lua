-- bucket_check.lua: take `cost` tokens, atomically; before bucket_peek.lua, which answers if none is
-- taken.
-- denied   debits nothing, and writes nothing unless the state is from the future, so a flood of
--          refusals replicates nothing
is_allowed = needed == 0 and blocked <= now
if is_allowed and cost > 0 then
  missing = missing + cost
  left, retry, reset = burst - missing, 0, time_of(missing, earned, gain, token)
  local ttl = math.ceil(math.max(reset, kept - now) / 1000)
  redis.call('SET', key, preface .. state_of(missing, earned), 'PX', string.format('%.0f', ttl))
elseif not is_allowed and (moved or is_preface_moved) then
  local ttl = math.ceil((math.max(ends, kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. (moved or raw), 'PX', string.format('%.0f', ttl))
end
