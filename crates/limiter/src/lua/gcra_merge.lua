-- gcra_merge.lua: what a new primary has missed; between merge_open.lua and merge_close.lua. The later
-- of two arrival times is the right one: each includes all that was spent before it, so several
-- survivors in any order leave what the best of them knows.
owed = math.min(owed - since, span)
if is_owed and owed > debt then
  debt, ends = owed, now + owed
  merged = struct.pack('>I8I8I8', ends, now, interval)
end
local debts_end = now + span
