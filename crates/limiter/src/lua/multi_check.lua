-- multi_check.lua: write all levels, or none; after multi.lua, which has found nothing that changes
-- between there and here.
-- denied   debits no level. Those that refuse are checked all the same, which writes nothing unless
--          their state is from the future: else it would never heal
for level, ask in ipairs(asked) do
  if not is_refused or replies[level][1] == 0 then
    replies[level] = checks[ask[1]](ask[2], ask[3])
  end
end
