-- lease.lua: the value, or the right to load it, or who has that right.
-- KEYS[1]  value   KEYS[2]  meta   KEYS[3]  guards   KEYS[4]  lease   KEYS[5]  stream
-- ARGV[1]  token, 8 bytes;  [2] length of the lease, ms 1..60000;  [3] fresh epoch, 8 bytes;  [4] ttl of the log, ms
-- ARGV[5]  µs, when the value was stored that the caller has seen and cannot use; 0 = none
-- ARGV[6]  the schema that the caller understands, 4 bytes
-- returns  { 0, meta, value } | { 1, meta } granted | { 2, meta, ms left } somebody else loads
--          | { 3, meta } somebody updates the origin: load, and keep nothing
-- clock    the server's TIME
-- expiry   the lease by its deadline and PX; a begun log by its ttl
-- twin     src/ops/lease.rs
local log = log_open(KEYS[2], KEYS[5], ARGV[3])
if log.new then log_save(KEYS[2], log, ARGV[4]) end
local raw = value_of(redis.call('GET', KEYS[1]), ARGV[6])
local stored = value_usable(raw, log, now)
if stored and stored ~= tonumber(ARGV[5]) then return { 0, log_pack(log), raw } end
if #guards_read(KEYS[3], now) > 0 then return { 3, log_pack(log) } end
local held = lease_read(KEYS[4], now)
-- A holder from before a clear, or from another history, can no longer fill: it blocks nobody.
if held and held.epoch == log.epoch and held.seq >= log.clear then
  local left = math.ceil((held.deadline - now) / 1000)
  if held.awaited == 0 then
    held.awaited = 1
    lease_write(KEYS[4], held, left)
  end
  return { 2, log_pack(log), left }
end
local deadline = now + ARGV[2] * 1000
lease_write(KEYS[4], { token = ARGV[1], epoch = log.epoch, seq = log.seq, deadline = deadline, awaited = 0 }, ARGV[2])
return { 1, log_pack(log) }
