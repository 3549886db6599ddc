-- window_refund.lua: give back what a call has spent, if it is still in the window.
-- ARGV[3]  cells of the call;  [4] µs, when it was decided;  [5] not used
-- ARGV[6]  not used;  [7] generation and [8] life of the key when it was decided
-- returns  cells that were given back: all or none
local spent_at, given = tonumber(ARGV[4]), 0
local place = math.floor(spent_at / width)
if
  is_used
  and not is_shift
  and spent_at <= now
  and tonumber(ARGV[7]) == generation
  and tonumber(ARGV[8]) == life
  and place > index - 64
  and place <= was
then
  ring = ring or redis.call('GETRANGE', key, base + 36, -1)
  local cells = current
  if place < was then cells = struct.unpack('>I4', ring, place % 64 * 4 + 1) end
  if cells >= cost then given = cost end
end
if given > 0 then
  refunds, kept = refunds + given, math.max(kept, ends)
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
  sum = sum - given
  local state = ''
  if sum > 0 then
    if place == was then
      current = current - given
    else
      local at = place % 64 * 4
      local cells = struct.unpack('>I4', ring, at + 1) - given
      ring = ring:sub(1, at) .. struct.pack('>I4', cells) .. ring:sub(at + 5)
      if place == oldest then
        first = cells
        while first == 0 and oldest < was do
          oldest = oldest + 1
          if oldest < was then first = struct.unpack('>I4', ring, oldest % 64 * 4 + 1) end
        end
      end
    end
    state = struct.pack('>I8I8I4I4I8I4', held_at, width, sum, current, oldest, first) .. ring
  end
  local ttl = math.ceil((math.max(kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
return given
