-- reply.lua: the last part of a script that checks or peeks.
-- returns  { now if allowed, else 0; cells left; retry_after µs; reset_after µs }, and if the key has a
--          preface or the grant may be partial { .., generation, life, refunds, µs blocked, granted }
if blocked > now then
  left, retry, reset = 0, math.max(retry, blocked - now), math.max(reset, blocked - now)
end
if preface == '' and not is_partial then
  return { is_allowed and now or 0, left, retry, reset }
end
return {
  is_allowed and now or 0, left, retry, reset,
  generation, life, refunds, math.max(0, blocked - now), is_allowed and cost or 0
}
