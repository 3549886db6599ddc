-- beat.lua: say where the log is, and keep it alive.
-- KEYS[1]  string  meta of the log
-- KEYS[2]  stream  its last entries
-- ARGV[1]  8 bytes name of the history if one has to begin;  [2] ms > 0 the log lives from now on
-- returns  { meta, now in µs }
-- clock    the server's TIME
-- expiry   the meta is renewed; without any beat or entry the log ends, and a new one begins
-- writes   always, so that a primary that lost its replicas refuses it (min-replicas-to-write);
--          the stream is renewed by one beat in a thousand, because two writes are a transaction,
--          and that is four commands to replicate instead of one
-- twin     src/ops/beat.rs
local log = log_open(KEYS[1], KEYS[2], ARGV[1])
if log.new then
  log_save(KEYS[1], log, ARGV[2])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  if now % 1024 == 0 then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
end
return { log_pack(log), string.format('%.0f', now) }
