-- roll.lua: functions for the roll of those who follow a log; they follow log.lua.
-- roll     hash: 8 bytes name of a follower -> its sign: seen at 8, life 8 (µs), epoch 8, seq 8;
--          field '' -> 8 bytes µs: when the roll was begun. Who lives has signed one life later
-- numbers  big-endian, exact below 2^53
-- twin     src/ops/roll.rs

local function roll_pack(sign)
  return struct.pack('>I8I8c8I8', sign.seen, sign.life, sign.epoch, sign.seq)
end

local function roll_read(raw)
  if not raw or #raw ~= 32 then return nil end
  local seen, life, epoch, seq = struct.unpack('>I8I8c8I8', raw)
  return { seen = seen, life = life, epoch = epoch, seq = seq }
end

-- The signs of the living by name, and how many they are. Whoever is dead is dropped. A sign from
-- the future is from a clock that has gone back since: it is good for one life from now.
local function roll_call(key, now)
  local living, count = {}, 0
  local flat = redis.call('HGETALL', key)
  for field = 1, #flat, 2 do
    local name = flat[field]
    if #name > 0 then
      local sign = roll_read(flat[field + 1])
      if not sign or sign.seen + sign.life <= now then
        redis.call('HDEL', key, name)
      else
        if sign.seen > now then
          sign.seen = now
          redis.call('HSET', key, name, roll_pack(sign))
        end
        living[name] = sign
        count = count + 1
      end
    end
  end
  return living, count
end
