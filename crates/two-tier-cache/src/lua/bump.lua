-- bump.lua: voids everything that carries a tag, without touching it.
-- KEYS[1]  meta   KEYS[2]  tags   KEYS[3]  stream
-- ARGV[1]  channel;  [2] fresh epoch;  [3] entry id;  [4] tail;  [5] entries kept;  [6] ttl of the log, ms
-- ARGV[7]  tag, any bytes but none;  [8] tags kept, > 1
-- returns  meta
-- full     PEXPIRE comes first: after a write, a server without room lets the rest of a script pass
-- pruned   with too many tags the older half is dropped, and what is older than they are is cleared
-- twin     src/ops/tags.rs
redis.call('PEXPIRE', KEYS[1], ARGV[6])
local log = log_open(KEYS[1], KEYS[3], ARGV[2])
tags_open(KEYS[2], log, ARGV[6])
redis.call('HSET', KEYS[2], ARGV[7], string.format('%.0f', log.seq + 1))
if redis.call('HLEN', KEYS[2]) - 1 > tonumber(ARGV[8]) then
  local flat, bumps = redis.call('HGETALL', KEYS[2]), {}
  for at = 1, #flat, 2 do
    if flat[at] ~= '' then bumps[#bumps + 1] = { tag = flat[at], seq = tonumber(flat[at + 1]) } end
  end
  table.sort(bumps, function(one, other) return one.seq < other.seq end)
  for at = 1, math.floor(#bumps / 2) do
    redis.call('HDEL', KEYS[2], bumps[at].tag)
    log.clear = math.max(log.clear, bumps[at].seq)
  end
  redis.call('HSET', KEYS[2], '', log.epoch .. string.format('%.0f', log.clear))
end
log_append(KEYS[1], KEYS[3], ARGV[1], log, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return log_pack(log)
