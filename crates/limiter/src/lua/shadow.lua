-- shadow.lua: spend several costs by the quota of a key, and by a candidate's, each on a state of its
-- own; after `decide` and `judge`, which are the whole scripts of the quota's batch and of the
-- candidate's, as functions of (KEYS, ARGV).
-- KEYS[1]  what was spent by the quota;  [2] what would have been by the candidate's; in one slot
-- ARGV     { how many arguments follow for the quota's batch, those .., those of the candidate's .. };
--          the candidate's costs are those that its quota can ever allow
-- returns  { what the batch answers, what the candidate's answers; nil if that failed }
-- failed   whatever the candidate's key holds, the quota's answer stands: it is there before the
--          candidate is asked, and an error of the candidate is caught
-- twin     src/op/shadowed.rs; tests/shadow_twin.rs compares replies and states exactly
local last = tonumber(ARGV[1]) + 1
local answers = decide({ KEYS[1] }, { unpack(ARGV, 2, last) })
local is_done, candidate = pcall(judge, { KEYS[2] }, { unpack(ARGV, last + 1) })
return { answers, is_done and candidate }
