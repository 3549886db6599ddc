-- log_refund.lua: give back what a call has spent, if it is still in the window.
-- ARGV[3]  cells of the call;  [4] µs, when it was decided;  [5] not used
-- ARGV[6]  not used;  [7] generation and [8] life of the key when it was decided
-- returns  cells that were given back: all or none
local spent_at, given, upto = tonumber(ARGV[4]), 0, 0
if
  live > 0
  and not is_shift
  and spent_at <= now
  and spent_at > now - window
  and tonumber(ARGV[7]) == generation
  and tonumber(ARGV[8]) == life
then
  -- Cells of one moment are alike, whichever call spent them.
  upto = spent_by(spent_at)
  if upto - spent_by(spent_at - 1) >= cost then given = cost end
end
if given > 0 then
  refunds, kept = refunds + given, math.max(kept, ends)
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
  local state = ''
  if live > given then
    cells = cells:sub(gone * 7 + 1, (upto - given) * 7) .. cells:sub(upto * 7 + 1)
    state = struct.pack('>I8', window) .. cells
  end
  local ttl = math.ceil((math.max(kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. state, 'PX', string.format('%.0f', ttl))
end
return given
