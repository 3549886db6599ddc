-- merge_open.lua: what a survivor of a failover knows of a key; between settle.lua and the merge of an
-- algorithm, which finds out what a new primary has missed.
-- ARGV     .. the last four: µs, for how long any of it counts;  cells of it;  generation and  refunds of
--          the key, as the survivor knows them. Before them a cost of 0: the algorithm finds out where
--          the quota stands, and no more
-- leaves   merged     nil; set by the merge to the state that must be kept, if the survivor knows of more
--                     than the server; then `ends` is when that is over
--          begun      the life that begins with it
--          since      what was given back and the survivor does not know of, in units of the algorithm
is_partial = true
local told = #ARGV - 4
local owed, owed_cells = tonumber(ARGV[told + 1]), tonumber(ARGV[told + 2])
local of, refunded = tonumber(ARGV[told + 3]), tonumber(ARGV[told + 4])
-- Whether the survivor knows of a reset that the server has missed.
local is_newer, since = of > generation, refunds - refunded
-- What was given back since is no debt any more. What was before a reset says nothing of after it.
if is_newer or since < 0 then since = 0 end
-- A debt from before a reset counts for nothing.
local is_owed = of >= generation and owed > 0
-- The clock that the receipts speak of may be another server's.
local merged, begun = nil, math.max(life + 1, now)
