-- tags.lua: functions for the versions of tags; they follow log.lua.
-- tags     hash: tag -> number of its last bump in decimal; field '' -> epoch 8, so that a hash that
--          was lost can be told from one that has no bumps, and the floor in decimal: the last number
--          up to which bumps may be missing here. Whoever reads the hash after a value has not seen
--          the clear that came with it.
-- twin     src/ops/tags.rs

-- Makes the hash belong to this history. If it did not, bumps may have been lost with it: then
-- nothing from before now counts any more.
local function tags_open(tags_key, log, ttl)
  local head = redis.call('HGET', tags_key, '')
  if not head or string.sub(head, 1, 8) ~= log.epoch then
    redis.call('DEL', tags_key)
    redis.call('HSET', tags_key, '', log.epoch .. string.format('%.0f', log.seq))
    log.clear = math.max(log.clear, log.seq)
  end
  redis.call('PEXPIRE', tags_key, ttl)
end

-- Whether none of ARGV[from] and the following was bumped after number `seq`.
local function tags_since(tags_key, from, seq)
  for at = from, #ARGV do
    local bumped = redis.call('HGET', tags_key, ARGV[at])
    if bumped and tonumber(bumped) > seq then return false end
  end
  return true
end
