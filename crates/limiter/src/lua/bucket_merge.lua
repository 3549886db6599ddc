-- bucket_merge.lua: what a new primary has missed; between merge_open.lua and merge_close.lua. The
-- larger of two deficits is the right one: each includes all that was taken before it, so several
-- survivors in any order leave what the best of them knows. Tokens that were missing at a survivor's last
-- answer are the most that can be missing now.
local whole = time_of(burst, 0, gain, token)
owed = math.min(math.max(0, owed - since), whole)
-- What is earned in that time: tokens, and parts of one more.
local most, parts = math.min(owed_cells, burst), owed % token * gain
local tokens = math.floor(owed / token) * gain + math.floor(parts / token)
parts = parts % token
-- What is missing: tokens, the last of which has parts.
if tokens >= most then
  tokens, parts = most, 0
elseif parts > 0 then
  tokens, parts = tokens + 1, token - parts
end
if is_owed and (tokens > missing or tokens == missing and parts < earned) then
  missing, earned = tokens, parts
  ends = now + time_of(missing, earned, gain, token)
  merged = state_of(missing, earned)
end
local debts_end = now + whole
