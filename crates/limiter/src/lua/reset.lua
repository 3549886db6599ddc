-- reset.lua: forget what was spent, and every block; after settle.lua.
-- returns  { generation, µs for which it must be remembered }; { 0, 0 } if there was nothing to forget,
--          or nothing that any limiter writes
--
-- The preface stays for as long as anybody may hold a receipt or a debt from before, so that neither
-- counts for the key as it is from now on.
local upto = math.max(ends, kept, blocked)
-- No state and no block lasts 11 years (quota.rs), and no generation is beyond what numbers hold.
if upto <= now or upto - now > 346896000000000 or generation >= 9007199254740991 then
  redis.call('DEL', key)
  return { 0, 0 }
end
generation = math.max(generation + 1, now)
preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, 0, upto, 0)
redis.call('SET', key, preface, 'PX', string.format('%.0f', math.ceil((upto - now) / 1000)))
return { generation, upto - now }
