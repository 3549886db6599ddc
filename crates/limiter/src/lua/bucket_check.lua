-- bucket_check.lua: take `cost` tokens, atomically; between bucket.lua and bucket_peek.lua, which
-- answers if nothing is taken.
-- denied   debits nothing, and writes nothing unless the state is from the future, so a flood of
--          refusals replicates nothing
if needed == 0 and cost > 0 then
  missing = missing + cost
  local reset = time_of(missing, earned, gain, token)
  local state = struct.pack('>I4I4I8I8I8', missing, gain, token, earned, now)
  redis.call('SET', key, state, 'PX', string.format('%.0f', math.ceil(reset / 1000)))
  return { now, burst - missing, 0, reset }
end
if needed > 0 and moved then
  redis.call('SET', key, moved, 'PX', string.format('%.0f', math.ceil((lapses - now) / 1000)))
end
