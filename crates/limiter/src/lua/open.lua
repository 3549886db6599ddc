-- open.lua: reads the key, and opens the preface; the standing of an algorithm goes on from here.
-- KEYS[1]  string: a preface of 49 bytes if something rare has happened to the key, then the state of
--          the algorithm, which may be missing after a preface. A state begins with a time, so its
--          first byte is 0; a preface begins with 1. Big-endian:
--          at 8          µs, when the preface was written
--          generation 8  raised by each reset; debts and receipts of another one count for nothing
--          life 8        raised when the state was re-anchored, its parameters changed, or a merge
--                        wrote it; receipts from before give nothing back. A merge of a window or a
--                        log says with it which cells it has added
--          refunds 8     all that was given back, in the units of the algorithm
--          kept 8        µs, until when somebody may hold a receipt or a debt that needs the above
--          blocked 8     µs, until when everything is refused
-- twin     src/held.rs
--
-- 85 bytes hold the preface and what an algorithm reads on nearly every call; without a preface,
-- which is the common case, the state begins with the first of them.
local key, preface = KEYS[1], ''
local generation, life, refunds, kept, blocked = 0, 0, 0, 0, 0
local is_preface_moved = false
local raw = redis.call('GETRANGE', key, 0, 84)
if raw:byte(1) == 1 and #raw >= 49 then
  local at
  at, generation, life, refunds, kept, blocked = struct.unpack('>I8I8I8I8I8I8', raw, 2)
  if at > now then
    -- The clock went back. What was to last, lasts as long as it was to from then.
    kept, blocked = math.max(kept - at, 0) + now, math.max(blocked - at, 0) + now
    is_preface_moved = true
  end
  preface, raw = raw:sub(1, 49), raw:sub(50)
end
-- Where the state begins in the key.
local base = #preface
