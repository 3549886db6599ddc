-- multi.lua: judge several levels at one moment; after `checks` and `peeks`, which hold the whole
-- scripts of each kind of level as functions of (KEYS, ARGV).
-- KEYS     one per level, all in one slot, no two of them the same
-- ARGV     for each level { kind, how many arguments follow, the arguments of its check .. }
-- returns  for each level what its check or its peek answers
-- twin     src/multi/op.rs; tests/multi_twin.rs compares replies and states exactly
local asked, replies, is_refused, place = {}, {}, false, 1
for level = 1, #KEYS do
  local own = {}
  for at = 1, tonumber(ARGV[place + 1]) do own[at] = ARGV[place + 1 + at] end
  asked[level] = { tonumber(ARGV[place]), { KEYS[level] }, own }
  place = place + 2 + #own
end
for level, ask in ipairs(asked) do
  replies[level] = peeks[ask[1]](ask[2], ask[3])
  is_refused = is_refused or replies[level][1] == 0
end
