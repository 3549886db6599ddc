-- beat.lua: say where the log is, keep it alive, and take a follower's sign of life.
-- KEYS[1]  string  meta of the log
-- KEYS[2]  hash    the roll: who follows it
-- KEYS[3]  stream  its last entries
-- ARGV[1]  8 bytes name of the history if one has to begin;  [2] ms > 0 the keys live from now on
-- ARGV[3]  8 bytes name of the follower;  [4] µs > 0 its sign is good for
-- ARGV[5]  what it has applied: epoch 8, seq 8, id of that entry 8; '' before its first baseline
-- ARGV[6]  0|1     renew the keys;  [7] followers that the roll takes >= 1
-- returns  { meta, now in µs }
-- clock    the server's TIME
-- expiry   all keys, when they are renewed; without any beat or entry the log ends, and a new one
--          begins
-- writes   always, so that a primary that lost its replicas refuses it (min-replicas-to-write);
--          one command as a rule, because two writes are a transaction, and that is four commands
--          to replicate instead of one
-- twin     src/ops/beat.rs
local log = log_open(KEYS[1], KEYS[3], ARGV[1])
if log.new then log_save(KEYS[1], log, ARGV[2]) end

-- Whether the log has the entry that the follower has applied last. The number alone proves
-- nothing: a server that went back in time has given it to another entry.
local function has(seq, id)
  if seq == 0 then return true end
  if seq >= log.seq then return seq == log.seq and id == log.last end
  local place = string.format('%.0f-1', seq)
  local found = redis.call('XRANGE', KEYS[3], place, place)[1]
  return found ~= nil and string.sub(found[2][2], 18, 25) == id
end

local held = redis.call('HGET', KEYS[2], ARGV[3])
local old = roll_read(held)
local sign = { seen = now, life = tonumber(ARGV[4]), epoch = string.rep('\0', 8), seq = 0 }
if ARGV[5] ~= '' then
  local epoch, seq, id = struct.unpack('>c8I8c8', ARGV[5])
  if epoch == log.epoch and has(seq, id) then sign.epoch, sign.seq = epoch, seq end
elseif old then
  -- It has begun nowhere yet, or this beat was overtaken by one that came after it had: either
  -- way it knows nothing later than what it has signed.
  sign.epoch, sign.seq = old.epoch, old.seq
else
  -- It will begin here, if it gets the answer.
  sign.epoch, sign.seq = log.epoch, log.seq
end

local fields, renew = { ARGV[3], roll_pack(sign) }, ARGV[6] == '1'
if not held then
  local begun = redis.call('HGET', KEYS[2], '')
  local _, living = roll_call(KEYS[2], now)
  if living >= tonumber(ARGV[7]) then
    -- Somebody is missing: a roll that has just begun says so, too.
    fields, begun = {}, nil
  end
  if not begun then
    fields[#fields + 1] = ''
    fields[#fields + 1] = struct.pack('>I8', now)
    renew = true
  end
end
if renew then
  -- Before the sign: after a write, a server that is full takes what follows.
  for key = 1, 3 do redis.call('PEXPIRE', KEYS[key], ARGV[2]) end
end
local signed = redis.pcall('HSET', KEYS[2], unpack(fields))
if type(signed) == 'table' and signed.err then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  redis.call('HSET', KEYS[2], unpack(fields))
end
-- A roll that did not exist before had no time to live to renew.
if renew then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return { log_pack(log), string.format('%.0f', now) }
