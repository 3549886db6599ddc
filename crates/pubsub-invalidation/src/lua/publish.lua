-- publish.lua: append one event.
-- KEYS[1]  string  meta of the log
-- KEYS[2]  stream  its last entries
-- ARGV[1]  channel;  [2] 8 bytes name of the history if one has to begin;  [3] 8 bytes entry id
-- ARGV[4]  source, number and body of the entry;  [5] entries kept;  [6] ms > 0 the log lives
-- returns  meta
-- clock    none
-- expiry   both keys are renewed
-- twin     src/ops/publish.rs
local log = log_open(KEYS[1], KEYS[2], ARGV[2])
-- Without room the server refuses the append, and so the event as a whole.
log_append(KEYS[1], KEYS[2], ARGV[1], log, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return log_pack(log)
