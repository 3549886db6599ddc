-- shadow.lua: spend several costs by the quota of a key, and by a candidate's, each on a state of its
-- own; after `batches`, which holds the whole script of each kind of batch as a function of
-- (KEYS, ARGV).
-- KEYS[1]  what was spent by the quota;  [2] what would have been by the candidate's; in one slot
-- ARGV     for each of both { kind, how many arguments follow, the arguments of its batch .. }; the
--          candidate's costs are those that its quota can ever allow
-- returns  { what the batch answers, what the candidate's answers; nil if that failed }
-- failed   whatever the candidate's key holds, the quota's answer stands: it is there before the
--          candidate is asked, and an error of the candidate is caught
-- twin     src/op/shadowed.rs; tests/shadow_twin.rs compares replies and states exactly
local function decide(key, place)
  local own = {}
  for at = 1, tonumber(ARGV[place + 1]) do own[at] = ARGV[place + 1 + at] end
  return batches[tonumber(ARGV[place])]({ key }, own), place + 2 + #own
end
local answers, place = decide(KEYS[1], 1)
local is_done, candidate = pcall(decide, KEYS[2], place)
return { answers, is_done and candidate }
