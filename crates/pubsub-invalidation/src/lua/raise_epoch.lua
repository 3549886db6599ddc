-- raise_epoch.lua: end a history that the server no longer tells as it was, if it still tells it.
-- KEYS[1]  string  meta of the log
-- KEYS[2]  stream  its last entries
-- ARGV[1]  8 bytes epoch that diverged;  [2] 8 bytes name of the new history
-- ARGV[3]  ms > 0  the log lives from now on
-- returns  { raised 0|1, meta }
-- clock    none
-- expiry   as every write to the log
-- denied   another epoch writes nothing: whoever was first has raised it
-- twin     src/ops/raise_epoch.rs
local log = log_open(KEYS[1], KEYS[2], ARGV[2])
local raised = 0
if not log.new and log.epoch == ARGV[1] then
  -- Deleted first: after a deletion a server that is full takes the meta too.
  redis.call('DEL', KEYS[2])
  log = { epoch = ARGV[2], seq = 0, last = string.rep('\0', 8), clear = 0 }
  raised = 1
end
if log.new or raised == 1 then log_save(KEYS[1], log, ARGV[3]) end
return { raised, log_pack(log) }
