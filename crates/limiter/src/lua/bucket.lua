-- bucket.lua: where one quota stands; between open.lua and settle.lua, and the verbs go on from there.
-- state    32 bytes: at 8, missing 4, gain 4, token 8, earned 8; big-endian; absent = a full bucket
--          at = µs, when it was written, missing = whole tokens that are not there, earned = parts of
--          the next one that are, gain and token = the rate it was written with
-- ARGV[1]  parts per µs, 1..;  [2] parts of a token, 1..; their product is at most 2^52
-- ARGV[3]  burst in tokens, 1..;  [4] cost in tokens, 0..burst; 0 costs nothing and is never refused
-- clock    `now`, bound by the prelude; integers, exact below 2^53; what is larger is only compared
-- expiry   when the bucket is full again: no key and a full bucket mean the same; not before the
--          preface may be forgotten
-- twin     src/bucket.rs; tests/lua_twin.rs compares replies and states exactly
local gain, token = tonumber(ARGV[1]), tonumber(ARGV[2])
local burst, cost = tonumber(ARGV[3]), tonumber(ARGV[4])
local missing, earned, ends, is_shift = 0, 0, now, false
-- What to write even if nothing is spent, because the stored state is from the future.
local moved

-- The time in which so many tokens are earned at a rate, of the last of which `parts` are there.
local function time_of(tokens, parts, at_gain, of_token)
  if tokens == 0 then return 0 end
  -- Whole rounds of `gain` tokens first, so that the products stay small.
  local rounds = math.floor((tokens - 1) / at_gain)
  return rounds * of_token + math.ceil(((tokens - rounds * at_gain) * of_token - parts) / at_gain)
end

if #raw == 32 then
  local at, held, held_gain, held_token, parts = struct.unpack('>I8I4I4I8I8', raw)
  if at > now then
    -- The clock went back. What was missing is missing still, as of now.
    at, moved, is_shift = now, struct.pack('>I8', now) .. raw:sub(9), true
  end
  local over = at + time_of(held, parts, held_gain, held_token)
  if over > now then
    ends = over
    -- The part of a token is given up if it is one of another rate.
    if held_gain ~= gain or held_token ~= token then parts, is_shift = 0, true end
    local passed = now - at
    parts = passed % token * gain + parts
    held = held - math.floor(passed / token) * gain - math.floor(parts / token)
    if held > 0 then missing, earned = held, parts % token end
  end
end

-- The state that is kept if nothing else happens from now on.
local function state_of(tokens, parts)
  return struct.pack('>I8I4I4I8I8', now, tokens, gain, token, parts)
end

-- How many tokens must come before the cost fits.
local needed = 0
if cost > 0 then needed = math.max(0, missing + cost - burst) end
