-- fixed_check.lua: spend `cost` cells of one quota, atomically; before fixed_peek.lua, which answers if
-- nothing is spent.
-- denied   debits nothing, and writes nothing unless the state is from the future, so a flood of
--          refusals replicates nothing
is_allowed = is_fitting and blocked <= now
if is_allowed and cost > 0 then
  left, retry, reset = max - sum - cost, 0, closes - now
  local ttl = math.ceil((math.max(kept_until(closes, window), kept) - now) / 1000)
  redis.call('SET', key, preface .. state_of(sum + cost), 'PX', string.format('%.0f', ttl))
elseif not is_allowed and (moved or is_preface_moved) then
  local ttl = math.ceil((math.max(ends, kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. (moved or raw), 'PX', string.format('%.0f', ttl))
end
