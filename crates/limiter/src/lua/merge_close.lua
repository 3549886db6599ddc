-- merge_close.lua: writes what a merge has found; between it and the peek of its algorithm, which
-- answers.
-- takes    debts_end  until when a debt of the quota can count that is begun now
-- returns  as a peek, always with the preface
-- writes   only if the survivor knows more: of what was spent, or of a reset
if is_owed and (merged or is_newer) then
  if merged then
    life = begun
  elseif ends > now then
    merged = redis.call('GETRANGE', key, base, -1)
  end
  -- Debts from before the reset may come until then. What was given back before it says nothing of
  -- debts from after it.
  if is_newer then kept, refunds = math.max(kept, debts_end), 0 end
  generation, refunds, kept = of, math.max(refunds, refunded), math.max(kept, ends)
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
  local ttl = math.ceil((math.max(kept, blocked) - now) / 1000)
  redis.call('SET', key, preface .. (merged or ''), 'PX', string.format('%.0f', ttl))
end
