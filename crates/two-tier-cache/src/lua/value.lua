-- value.lua: functions for what lies in L2 under a cache's tag; they follow log.lua.
-- value    epoch 8, seq 8, stored at 8, expires at 8 (µs, server time), then the envelope
-- lease    token 8, epoch 8, seq 8, deadline 8 (µs), awaited 1
-- numbers  big-endian, exact below 2^53
-- twin     src/ops/state.rs

-- Whether a value has not expired, was written in this history and after its last clear.
local function value_usable(raw, log, now)
  if not raw or #raw < 32 then return false end
  local epoch, seq, stored, expires = struct.unpack('>c8I8I8I8', raw)
  return epoch == log.epoch and seq >= log.clear and expires > now
end

local function value_set(key, epoch, seq, now, envelope, ttl)
  local head = struct.pack('>c8I8I8I8', epoch, seq, now, now + ttl * 1000)
  return redis.pcall('SET', key, head .. envelope, 'PX', ttl)
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
