-- value.lua: functions for what lies in L2 under a cache's tag; they follow log.lua.
-- value    a variant: epoch 8, seq 8, stored at 8, expires at 8 (µs, server time), then the envelope;
--          or, while instances of several schemas are alive, VARIANTS in the place of the epoch and
--          then each variant behind its length 4, the latest first
-- lease    token 8, epoch 8, seq 8, deadline 8 (µs), awaited 1
-- numbers  big-endian, exact below 2^53
-- twin     src/ops/state.rs

local VARIANTS, VARIANTS_MAX, VARIANTS_BYTES_MAX, TTL_MAX = '\255FWvar\0\1', 3, 16777216, 315360000000

-- The schema stands at 5 in the envelope.
local function value_schema(variant)
  if #variant < 41 then return '\0\0\0\0' end
  return string.sub(variant, 38, 41)
end

-- The variant whose length is at `at`, and where the next one's is. Where it makes no sense it ends.
local function value_next(raw, at)
  if at + 3 > #raw then return nil end
  local len = struct.unpack('>I4', raw, at)
  if len < 32 or at + 3 + len > #raw then return nil end
  return string.sub(raw, at + 4, at + 3 + len), at + 4 + len
end

local function value_of(raw, schema)
  if not raw then return nil end
  if string.sub(raw, 1, 8) ~= VARIANTS then return value_schema(raw) == schema and raw or nil end
  local variant, at = value_next(raw, 9)
  while variant and value_schema(variant) ~= schema do variant, at = value_next(raw, at) end
  return variant
end

-- When a variant was stored, if it has not expired, was written in this history and after its last
-- clear; else nil.
local function value_usable(variant, log, now)
  if not variant or #variant < 32 then return nil end
  local epoch, seq, stored, expires = struct.unpack('>c8I8I8I8', variant)
  return epoch == log.epoch and seq >= log.clear and expires > now and stored or nil
end

-- In the place of whatever is there, of any schema.
local function value_set(key, epoch, seq, now, envelope, ttl)
  local head = struct.pack('>c8I8I8I8', epoch, seq, now, now + ttl * 1000)
  return redis.pcall('SET', key, head .. envelope, 'PX', ttl)
end

-- In the place of the variant of the same schema, if there is one, and in front of the others that
-- still count. Usually there are none, which the first bytes say: then nothing else is read.
local function value_add(key, log, seq, now, envelope, ttl)
  local own = struct.pack('>c8I8I8I8', log.epoch, seq, now, now + ttl * 1000) .. envelope
  local first, schema = redis.call('GETRANGE', key, 0, 40), value_schema(own)
  local several = string.sub(first, 1, 8) == VARIANTS
  if #first < 32 or (not several and value_schema(first) == schema) then
    return redis.pcall('SET', key, own, 'PX', ttl)
  end
  local raw, kept, bytes, last = redis.call('GET', key), { own }, #own, now + ttl * 1000
  local variant, at = raw, #raw + 1
  if several then variant, at = value_next(raw, 9) end
  while variant and #kept < VARIANTS_MAX do
    local fits = bytes + #variant <= VARIANTS_BYTES_MAX and value_schema(variant) ~= schema
    if fits and value_usable(variant, log, now) then
      kept[#kept + 1], bytes = variant, bytes + #variant
      last = math.max(last, struct.unpack('>I8', variant, 25))
    end
    variant, at = value_next(raw, at)
  end
  if #kept == 1 then return redis.pcall('SET', key, own, 'PX', ttl) end
  for place, one in ipairs(kept) do kept[place] = struct.pack('>I4', #one) .. one end
  local left = math.min(math.ceil((last - now) / 1000), TTL_MAX)
  return redis.pcall('SET', key, VARIANTS .. table.concat(kept), 'PX', left)
end

-- The lease, unless it has run out. A deadline further off than any lease is from a clock that
-- has gone back since: such a lease must not outlive its length, so it counts as run out.
local function lease_read(key, now)
  local raw = redis.call('GET', key)
  if not raw or #raw ~= 33 then return nil end
  local token, epoch, seq, deadline, awaited = struct.unpack('>c8c8I8I8B', raw)
  if deadline <= now or deadline - now > 60000000 then return nil end
  return { token = token, epoch = epoch, seq = seq, deadline = deadline, awaited = awaited }
end

local function lease_write(key, lease, ttl)
  local raw = struct.pack('>c8c8I8I8B', lease.token, lease.epoch, lease.seq, lease.deadline, lease.awaited)
  redis.call('SET', key, raw, 'PX', ttl)
end
