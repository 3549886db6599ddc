-- window_batch.lua: spend several costs of one quota, one after the other, as if each came alone at
-- this moment; follows settle.lua, after a standing that serves all of them, and writes at most
-- once, but for the count of a sub-window that is over.
-- ARGV[3]  0: window.lua finds out where the quota stands, and no more
-- ARGV[4]  the costs in their order, 4 bytes each, big-endian; 0..max
-- returns  as gcra_batch.lua
-- denied   as window_check.lua; what was refused does not keep later, smaller costs from being spent
local replies, is_spent, is_refused, is_new = {}, false, false, false
-- The last refusal: a crowd on a full window asks the same again and again.
local refused_cost, refusal
local pause = math.max(0, blocked - now)
for at = 1, #ARGV[4], 4 do
  cost = struct.unpack('>I4', ARGV[4], at)
  is_fitting = cost == 0 or sum + cost <= max
  is_allowed = is_fitting and pause == 0
  if is_allowed and cost > 0 then
    if not is_used then
      ring, is_used = string.rep('\0', 256), true
    elseif was ~= index then
      -- A sub-window begins, so the count of the last one moves from the head to the ring.
      if oldest == was then first = current end
      local place, count = was % 64 * 4, struct.pack('>I4', current)
      if ring then
        ring = ring:sub(1, place) .. count .. ring:sub(place + 5)
      else
        redis.call('SETRANGE', key, string.format('%.0f', base + 36 + place), count)
      end
      current, was, is_new = 0, index, true
    end
    sum, current = sum + cost, current + cost
    ends, is_spent, refused_cost = (index + 64) * width, true, nil
  end
  local reply = refusal
  if is_allowed then
    local reset = 0
    if is_used then reset = math.min((was + 64) * width, ends) - now end
    reply = struct.pack('>BI4I8I8', 1, math.max(0, max - sum), 0, reset)
  elseif cost ~= refused_cost then
    left, retry, reset = math.max(0, max - sum), 0, 0
    if is_used then reset = math.min((was + 64) * width, ends) - now end
    if not is_fitting then
      -- Enough must leave the window, the oldest first.
      local rest, last = sum - (oldest == was and current or first), oldest
      if rest + cost > max then
        ring = ring or redis.call('GETRANGE', key, base + 36, -1)
        for slot = math.max(oldest + 1, was - 63), was do
          local cells = current
          if slot < was then cells = struct.unpack('>I4', ring, slot % 64 * 4 + 1) end
          rest, last = rest - cells, slot
          if rest + cost <= max then break end
        end
      end
      retry = math.min((last + 64) * width, ends) - now
    end
    if pause > 0 then left = 0 end
    reply = struct.pack('>BI4I8I8', 0, left, math.max(pause, retry), math.max(pause, reset))
    is_refused, refused_cost, refusal = true, cost, reply
  end
  replies[#replies + 1] = reply
end
if is_spent then
  head = struct.pack('>I8I8I4I4I8I4', now, width, sum, current, oldest, first)
  local ttl = string.format('%.0f', math.ceil((math.max(ends, kept) - now) / 1000))
  if ring then
    redis.call('SET', key, preface .. head .. ring, 'PX', ttl)
  else
    redis.call('SETRANGE', key, 0, preface .. head)
    -- Within one sub-window the end of the state does not move.
    if is_new then redis.call('PEXPIRE', key, ttl) end
  end
elseif is_refused and (moved_sum or is_preface_moved) then
  local state
  if moved_sum then
    local newest = math.floor(now / moved_width)
    head = struct.pack('>I8I8I4I4I8I4', now, moved_width, moved_sum, moved_sum, newest, 0)
    state = head .. string.rep('\0', 256)
  else
    state = redis.call('GETRANGE', key, base, -1)
  end
  local ttl = math.ceil((math.max(ends, kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
replies[#replies + 1] = struct.pack('>I8', now)
if preface ~= '' then
  replies[#replies + 1] = struct.pack('>I8I8I8I8', generation, life, refunds, pause)
end
return table.concat(replies)
