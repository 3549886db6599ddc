-- guards.lua: functions for the guards on a key: while somebody updates its origin, nobody may fill it.
-- guards   string: token 8, deadline 8 (µs, server time), for each guard, the oldest first
-- numbers  big-endian, exact below 2^53
-- twin     src/ops/guard.rs

local GUARDS_MAX, GUARD_LIFE_MAX, CROWD = 64, 60000000, string.rep('\0', 8)

-- Those that have not run out. A deadline further off than any guard lives is from a clock that has
-- gone back since: it must not outlive its length, so it counts as run out.
local function guards_read(key, now)
  local raw, guards = redis.call('GET', key), {}
  for at = 1, raw and #raw - 15 or 0, 16 do
    local token, deadline = struct.unpack('>c8I8', raw, at)
    if deadline > now and deadline - now <= GUARD_LIFE_MAX then
      guards[#guards + 1] = { token = token, deadline = deadline }
    end
  end
  return guards
end

-- Lets a guard live for so many ms from now on, or ends it if that is 0.
local function guards_set(key, now, token, life)
  local guards, kept, own, last = guards_read(key, now), {}, nil, now
  for _, guard in ipairs(guards) do
    if guard.token == token then own = guard end
    if guard.token ~= token or life > 0 then kept[#kept + 1] = guard end
  end
  local deadline = now + life * 1000
  if life > 0 and own then
    own.deadline = deadline
  elseif life > 0 and #kept < GUARDS_MAX then
    kept[#kept + 1] = { token = token, deadline = deadline }
  elseif life > 0 then
    -- A crowd: what has no place of its own any more can only run out.
    local crowd = kept[#kept]
    crowd.token, crowd.deadline = CROWD, math.max(crowd.deadline, deadline)
  end
  for place, guard in ipairs(kept) do
    last = math.max(last, guard.deadline)
    kept[place] = struct.pack('>c8I8', guard.token, guard.deadline)
  end
  if #kept == 0 then return redis.call('DEL', key) end
  redis.call('SET', key, table.concat(kept), 'PX', math.ceil((last - now) / 1000))
end
