-- once_open.lua: a request that was allowed before gets that answer again; first in a script, before
-- the function `check`, which is the whole script of a check.
-- KEYS[2]  string of 48 bytes, one per request: at 8, left 4, granted 4, reset 8, generation 8, life 8,
--          refunds 8; big-endian; absent = not answered yet, or refused
--          what was answered, with at = µs, when
-- ARGV     those of the check, and after them { cost in cells, µs for which an answer is remembered }
-- returns  as the check
-- again    writes nothing, and looks at nothing else: what happened to the key since does not matter
-- twin     src/told.rs; tests/once_twin.rs compares replies and states exactly
local horizon, asked = tonumber(table.remove(ARGV)), tonumber(table.remove(ARGV))
local told = redis.call('GET', KEYS[2])
if told and #told == 48 then
  local at, left, granted, reset, generation, life, refunds = struct.unpack('>I8I4I4I8I8I8I8', told)
  if at + horizon > now then return { at, left, 0, reset, generation, life, refunds, 0, granted } end
end
