-- layout.lua: agrees on how a cache is laid out, and says that somebody who does so is alive.
-- KEYS[1]  string  alive until 8 (µs, server time, big-endian), then the layout   KEYS[2]  meta   KEYS[3]  stream
-- ARGV[1]  own layout;  [2] ms that a sign of life counts;  [3] ttl of the record, ms
-- returns  nil = agreed | the layout of those who are here already, which is another
-- clock    the server's TIME; a deadline further off than a sign of life counts is from a clock that
--          has gone back since, and is drawn in: nobody is kept out for longer than that
-- denied   writes nothing but such a deadline
-- taken    over from those of whom nobody lives: without its meta, the log begins a new history, in
--          which nothing counts that they have left
-- expiry   PX, longer than that of the log: the record must not go while what it speaks of counts
-- full     PEXPIRE comes first: after a write, a server without room lets the rest of a script pass
-- twin     src/ops/layout.rs
local own, life, ttl = ARGV[1], tonumber(ARGV[2]) * 1000, ARGV[3]
local function sign(layout)
  redis.call('PEXPIRE', KEYS[1], ttl)
  redis.call('SET', KEYS[1], struct.pack('>I8', now + life) .. layout, 'PX', ttl)
end
local raw = redis.call('GET', KEYS[1])
if raw and #raw > 8 and string.sub(raw, 9) ~= own then
  local theirs, deadline = string.sub(raw, 9), struct.unpack('>I8', raw)
  if deadline > now + life then sign(theirs) end
  if deadline > now then return theirs end
  redis.call('DEL', KEYS[2], KEYS[3])
end
sign(own)
return false
