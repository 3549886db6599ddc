-- settle.lua: the preface as it must be written, after an algorithm has found out where it stands.
-- takes    ends      when the stored state is over, by the parameters it was written with; now if
--                    there is none
--          is_shift  whether a write changes what the times in the state mean: it is from the future,
--                    or of other parameters
-- leaves   preface   what stands before the state in the next write; '' in the common case
if base > 0 and ends <= now and kept <= now and blocked <= now then
  -- Nothing of the key means anything any more.
  preface, is_preface_moved = '', false
  generation, life, refunds, kept, blocked = 0, 0, 0, 0, 0
end
if is_shift then
  life, kept = math.max(life + 1, now), math.max(kept, ends)
end
if is_shift or is_preface_moved then
  preface = struct.pack('>BI8I8I8I8I8I8', 1, now, generation, life, refunds, kept, blocked)
end
-- The answer, which the next parts fill in. A partial grant says how much it is.
local is_allowed, is_partial = false, false
local left, retry, reset
