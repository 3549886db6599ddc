-- muster.lua: how far have all who follow a log come?
-- KEYS[1]  string  meta of the log
-- KEYS[2]  hash    the roll: who follows it
-- ARGV[1]  µs > 0  a sign is good for, as far as the caller knows;  [2] ms > 0 the roll lives
-- ARGV[3]  channel of the log;  [4] what to publish on it if somebody is not where the log is
-- returns  { meta or nil, how many live, how many of them in another history, the least number
--          that the others have applied, 0|1 the roll is complete }
-- clock    the server's TIME
-- expiry   the roll's, if it has to be begun
-- twin     src/ops/muster.rs
local meta = redis.call('GET', KEYS[1])
if not meta or #meta ~= 32 then return { false, 0, 0, '0', 0 } end
local epoch, seq = struct.unpack('>c8I8', meta)
local living, count = roll_call(KEYS[2], now)
local strangers, least, longest = 0, seq, tonumber(ARGV[1])
for _, sign in pairs(living) do
  if sign.epoch ~= epoch then
    strangers = strangers + 1
  else
    least = math.min(least, sign.seq)
  end
  longest = math.max(longest, sign.life)
end
local raw = redis.call('HGET', KEYS[2], '')
local begun = raw and #raw == 8 and struct.unpack('>I8', raw)
if not begun or begun > now then
  begun = now
  -- After a write, a server that is full takes what follows.
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
  redis.call('HSET', KEYS[2], '', struct.pack('>I8', now))
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
if strangers > 0 or least < seq then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
local complete = begun + longest <= now and 1 or 0
return { meta, count, strangers, string.format('%.0f', least), complete }
