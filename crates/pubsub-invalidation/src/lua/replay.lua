-- replay.lua: one page of entries, with the meta that they end at.
-- KEYS[1]  string  meta of the log
-- KEYS[2]  stream  its last entries
-- ARGV[1]  number of the first entry wanted;  [2] entries of a page >= 2
-- ARGV[3]  bytes: the page ends with the entry that exceeds them
-- returns  { meta or nil, { entry, ... } }; without a meta the stream says nothing, and is not read
-- clock    none
-- writes   nothing
-- twin     src/ops/replay.rs
local meta = redis.call('GET', KEYS[1])
local page = {}
if not meta or #meta ~= 32 then return { false, page } end
local room = tonumber(ARGV[3])
for _, item in ipairs(redis.call('XRANGE', KEYS[2], ARGV[1] .. '-1', '+', 'COUNT', ARGV[2])) do
  local entry = item[2][2]
  page[#page + 1] = entry
  room = room - #entry
  if room < 0 then break end
end
return { meta, page }
