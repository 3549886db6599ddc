-- allot.lua: gives a place its short id, once, and lengthens the life of one that it has.
-- KEYS[1]  string  the id of the place   KEYS[2] and on  string  the place that has each candidate
-- ARGV[1]  place;  [2] ttl, ms;  [3] and on: the candidates, shortest first
-- returns  the id | nil if other places have all candidates
-- kept     an id that the place has is never given up for a shorter one
-- full     what is written first can be refused, so there is never an id without its place
-- expiry   PX; nothing depends on when
-- twin     src/ops/allot.rs
local place, ttl = ARGV[1], ARGV[2]
local held = redis.call('GET', KEYS[1])
local owners = redis.call('MGET', unpack(KEYS, 2))
local best, rank = 0, 0
for at = 1, #owners do
  local suits = 0
  if owners[at] == place then suits = 2 elseif not owners[at] then suits = 1 end
  if suits > 0 and ARGV[at + 2] == held then suits = suits + 2 end
  if suits > rank then best, rank = at, suits end
end
if best == 0 then return false end
if rank == 4 then
  redis.call('PEXPIRE', KEYS[best + 1], ttl)
  redis.call('PEXPIRE', KEYS[1], ttl)
else
  redis.call('SET', KEYS[best + 1], place, 'PX', ttl)
  redis.call('SET', KEYS[1], ARGV[best + 2], 'PX', ttl)
end
return ARGV[best + 2]
