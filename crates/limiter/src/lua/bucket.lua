-- bucket.lua: where one quota stands; bucket_check.lua and bucket_peek.lua go on from here.
-- KEYS[1]  string of 32 bytes: missing 4, gain 4, token 8, earned 8, at 8; big-endian;
--          absent = a full bucket
--          missing = whole tokens that are not there, earned = parts of the next one that are;
--          at = µs, when it was written, gain and token = the rate it was written with
-- ARGV[1]  parts per µs, 1..;  [2] parts of a token, 1..; their product is at most 2^52
-- ARGV[3]  burst in tokens, 1..;  [4] cost in tokens, 0..burst; 0 costs nothing and is never refused
-- returns  { allowed 0|1, tokens left, retry_after µs, reset_after µs }
-- clock    `now`, bound by the prelude; integers, exact below 2^53; what is larger is only compared
-- expiry   when the bucket is full again: no key and a full bucket mean the same
-- twin     src/bucket.rs; tests/lua_twin.rs compares replies and states exactly
local gain, token = tonumber(ARGV[1]), tonumber(ARGV[2])
local burst, cost = tonumber(ARGV[3]), tonumber(ARGV[4])
local key, missing, earned, lapses = KEYS[1], 0, 0, now
-- What to write even if nothing is spent, because the stored state is from the future.
local moved

-- The time in which so many tokens are earned at a rate, at least one, of which `parts` are there.
local function time_of(tokens, parts, at_gain, of_token)
  -- Whole rounds of `gain` tokens first, so that the products stay small.
  local rounds = math.floor((tokens - 1) / at_gain)
  return rounds * of_token + math.ceil(((tokens - rounds * at_gain) * of_token - parts) / at_gain)
end

local raw = redis.call('GET', key)
if raw and #raw == 32 then
  local held, held_gain, held_token, parts, at = struct.unpack('>I4I4I8I8I8', raw)
  if at > now then
    -- The clock went back. What was missing is missing still, as of now.
    at, moved = now, raw:sub(1, 24) .. struct.pack('>I8', now)
  end
  local over = at + time_of(held, parts, held_gain, held_token)
  if over > now then
    -- The part of a token is given up if it is one of another rate.
    if held_gain ~= gain or held_token ~= token then parts = 0 end
    local passed = now - at
    parts = passed % token * gain + parts
    held = held - math.floor(passed / token) * gain - math.floor(parts / token)
    if held > 0 then missing, earned, lapses = held, parts % token, over end
  end
end

-- The time until so many of the missing tokens are there, by the quota of now.
local function until_earned(tokens)
  if tokens == 0 then return 0 end
  return math.min(time_of(tokens, earned, gain, token), lapses - now)
end

local needed = 0
if cost > 0 then needed = math.max(0, missing + cost - burst) end
