-- log.lua: functions that every script which touches a log starts with.
-- meta     string of 32 bytes: epoch 8, seq 8, id of the last entry 8, seq of the last clear 8
-- stream   last entries, id `<seq>-1`, field `e` = the entry as it was published
-- numbers  big-endian, exact below 2^53
-- twin     src/log/append.rs

-- Reads the meta, or begins a history named `fresh`. Without a meta nothing is known about what
-- was written before, so the old stream must not be taken for part of the new history.
local function log_open(meta_key, stream_key, fresh)
  local raw = redis.call('GET', meta_key)
  if raw and #raw == 32 then
    local epoch, seq, last, clear = struct.unpack('>c8I8c8I8', raw)
    return { epoch = epoch, seq = seq, last = last, clear = clear }
  end
  redis.call('DEL', stream_key)
  return { epoch = fresh, seq = 0, last = string.rep('\0', 8), clear = 0, new = true }
end

local function log_pack(log)
  return struct.pack('>c8I8c8I8', log.epoch, log.seq, log.last, log.clear)
end

local function log_save(meta_key, log, ttl)
  redis.call('SET', meta_key, log_pack(log), 'PX', ttl)
end

-- Appends an entry, publishes it, and saves the meta. `log.clear` may have been set before.
local function log_append(meta_key, stream_key, channel, log, id, tail, cap, ttl)
  local entry = struct.pack('>Bc8I8c8c8', 1, log.epoch, log.seq + 1, id, log.last) .. tail
  log.seq = log.seq + 1
  log.last = id
  local place = string.format('%.0f-1', log.seq)
  local added = redis.pcall('XADD', stream_key, 'MAXLEN', cap, place, 'e', entry)
  if type(added) == 'table' and added.err then
    -- A stream whose numbers are ahead belongs to another history than the meta. Any other error
    -- (a server without room) must not cost the followers their replay: it ends the script.
    if string.find(added.err, 'equal or smaller', 1, true) then redis.call('DEL', stream_key) end
    redis.call('XADD', stream_key, 'MAXLEN', cap, place, 'e', entry)
  end
  redis.call('PEXPIRE', stream_key, ttl)
  log_save(meta_key, log, ttl)
  redis.call('PUBLISH', channel, entry)
end
