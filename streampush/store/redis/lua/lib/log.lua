--! needs totals
-- The logs of the channels: every offset above the floor has an entry, without a hole.
--   log:CHANNEL  hash  the state: top, floor, floor_id, size, expiring, urgent, receipted, oldest_at
--   ent:CHANNEL  hash  offset: the entry's facts, a list in the order of log.encode
--   pay:CHANNEL  hash  offset: {headers, payload}; not there if both are empty, or freed
--   ttl:CHANNEL  zset  when it expires: offset; of entries that expire and are not freed
--   lost:CHANNEL zset  offset: offset; of those that were freed because they had expired, so that they are counted behind an offset
--   msg          hash  message id: {channel, offset}; offset 0: it waits for its time
--   exp          zset  when it expires: OFFSET:CHANNEL; of all entries that are to be freed then
--   age          zset  when its oldest entry was published: channel; of channels with more than one
local log = {}

-- Bits of an entry's flags: streampush/store/packing.py.
log.WANTS_RECEIPT, log.CLEAR_ON_PROCESSED, log.FREED = 1, 2, 4

-- Lua's own; the short name is MessagePack's here.
log.spread = _G.unpack

-- Entries read with one command.
log.CHUNK = 100

-- ------------------------------------------------------------------------------------------------------------------ states

-- What is kept of a state, in the order in which it is read; the last one is no number.
log.FIELDS = {'top', 'floor', 'size', 'expiring', 'urgent', 'receipted', 'oldest_at', 'floor_id'}

--- The state of a channel's log; nil if nothing was ever appended. `oldest_at`: no entry is older; it may be of one that is gone.
function log.state(channel)
  local row = call('HMGET', P .. 'log:' .. channel, log.spread(log.FIELDS))
  if not row[1] then
    return nil
  end
  for place = 1, #row - 1 do
    row[place] = tonumber(row[place])
  end
  local state = {
    channel = channel, top = row[1], floor = row[2], size = row[3], expiring = row[4], urgent = row[5], receipted = row[6],
    oldest_at = row[7], floor_id = row[8],
    saved = row, more_bytes = 0, more_entries = 0, is_new = false, aged = false, oldest = false, oldest_offset = 0,
  }
  state.aged = log.age(state)
  return state
end

--- The state of a log that is begun now; it is there when it is saved.
function log.begin(channel)
  return {
    channel = channel, top = 0, floor = 0, size = 0, expiring = 0, urgent = 0, receipted = 0, oldest_at = 0, floor_id = '',
    saved = {}, more_bytes = 0, more_entries = 0, is_new = true, aged = false, oldest = false, oldest_offset = 0,
  }
end

--- Writes what has changed of a state (a number costs more to write than to compare), and what the whole store holds with it.
function log.save(state)
  local saved, changed = state.saved, {}
  for place, name in ipairs(log.FIELDS) do
    local value = state[name]
    if value ~= saved[place] then
      saved[place] = value
      changed[#changed + 1] = name
      changed[#changed + 1] = value
    end
  end
  if #changed > 0 then
    call('HSET', P .. 'log:' .. state.channel, log.spread(changed))
  end
  log.count('channels', state.is_new and 1 or 0)
  log.count('bytes', state.more_bytes)
  log.count('publications', state.more_entries)
  state.is_new, state.more_bytes, state.more_entries = false, 0, 0
  local age = log.age(state)
  if age and age ~= state.aged then
    call('ZADD', P .. 'age', age, state.channel)
  elseif state.aged and not age then
    call('ZREM', P .. 'age', state.channel)
  end
  state.aged = age
end

function log.count(name, more)
  if more ~= 0 then
    totals.add(name, more)
  end
end

--- What the sweep by age looks at; false for a log of one entry, which stays however old it is.
function log.age(state)
  return state.top - state.floor > 1 and state.oldest_at
end

--- The oldest entry of a log that has one, looked up once.
function log.oldest(state)
  if state.oldest_offset ~= state.floor + 1 then
    state.oldest_offset = state.floor + 1
    state.oldest = log.entry(state.channel, state.oldest_offset) or log.gone()
  end
  return state.oldest
end

--- The entries of a log weigh so many bytes more, or less.
function log.weigh(state, more)
  state.size = state.size + more
  state.more_bytes = state.more_bytes + more
end

-- ----------------------------------------------------------------------------------------------------------------- entries

--- An entry from its list of facts. Written out, because a table that grows field by field costs four times as much.
function log.named(facts)
  return {
    message_id = facts[1], published_at = facts[2], expires_at = facts[3], deliver_at = facts[4], priority = facts[5],
    flags = facts[6], size = facts[7], weight = facts[8], version = facts[9], superseded_by = facts[10],
    recalled_at = facts[11], recalls = facts[12], collapse_key = facts[13], publisher = facts[14], content_type = facts[15],
  }
end

--- An entry from what lies in Redis.
function log.decode(packed)
  return log.named(unpack(packed))
end

--- The other way.
function log.encode(entry)
  return pack({
    entry.message_id, entry.published_at, entry.expires_at, entry.deliver_at, entry.priority,
    entry.flags, entry.size, entry.weight, entry.version, entry.superseded_by,
    entry.recalled_at, entry.recalls, entry.collapse_key, entry.publisher, entry.content_type,
  })
end

--- The entry at an offset, or nil.
function log.entry(channel, offset)
  local packed = call('HGET', P .. 'ent:' .. channel, offset)
  return packed and log.decode(packed) or nil
end

--- What stands for an entry that Redis has thrown away, which it must not (maxmemory-policy): nobody can read it, and it is too old
--- for every log. What is left of its log goes on.
function log.gone()
  return {
    message_id = '', published_at = 0, expires_at = 0, deliver_at = 0, priority = 0, flags = log.FREED, size = 0, weight = 0,
    version = '', superseded_by = 0, recalled_at = 0, recalls = '', collapse_key = '', publisher = '', content_type = '',
  }
end

function log.write(channel, offset, entry)
  call('HSET', P .. 'ent:' .. channel, offset, log.encode(entry))
end

--- What lies in Redis of the entries from `first` to `last`, false where none is. Some hundreds at a time.
function log.entries(channel, first, last)
  if last < first then
    return {}
  end
  local offsets = {}
  for offset = first, last do
    offsets[#offsets + 1] = offset
  end
  return call('HMGET', P .. 'ent:' .. channel, log.spread(offsets))
end

--- Calls `look(offset, entry, packed)` for the entries with after < offset <= last, oldest first, until it gives true.
function log.walk(state, after, last, look)
  last = math.min(last, state.top)
  local first = math.max(after, state.floor) + 1
  while first <= last do
    local found = log.entries(state.channel, first, math.min(first + log.CHUNK - 1, last))
    for place, packed in ipairs(found) do
      if packed and look(first + place - 1, log.decode(packed), packed) then
        return
      end
    end
    first = first + log.CHUNK
  end
end

--- Where a message is: channel and offset, 0 if it waits for its time; nil if it is not known.
function log.place(message_id)
  local packed = call('HGET', P .. 'msg', message_id)
  if not packed then
    return nil
  end
  local place = unpack(packed)
  return place[1], place[2]
end

--- Headers and payload as they lie in Redis; false if there is nothing of them.
function log.packed_body(channel, offset)
  return call('HGET', P .. 'pay:' .. channel, offset)
end

--- Headers as JSON, and payload.
function log.body(channel, offset)
  local packed = log.packed_body(channel, offset)
  if not packed then
    return '', ''
  end
  local body = unpack(packed)
  return body[1], body[2]
end

-- --------------------------------------------------------------------------------------------------- what an entry is good for

function log.has(entry, flag)
  return bit.band(entry.flags, flag) ~= 0
end

--- A newer one stands for it, or it was taken back: it is no loss.
function log.left_out(entry)
  return entry.superseded_by > 0 or entry.recalled_at > 0
end

function log.readable(entry, now)
  return not (log.has(entry, log.FREED) or log.left_out(entry) or (entry.expires_at > 0 and entry.expires_at <= now))
end

--- A whole number as text. `..` would write a large one with an exponent; and what several commands are given is written once.
function log.digits(number)
  return string.format('%.0f', number)
end

--- How the zset `exp` calls an entry.
function log.spot(channel, offset)
  return log.digits(offset) .. ':' .. channel
end

--- Drops payload and headers of an entry, which is to be written afterwards, as is the state.
function log.free(state, offset, entry)
  local rest = log.length(entry.content_type)
  log.weigh(state, rest - entry.weight)
  entry.weight = rest
  if not log.has(entry, log.FREED) then
    entry.flags = entry.flags + log.FREED
  end
  call('HDEL', P .. 'pay:' .. state.channel, offset)
  if entry.expires_at > 0 then
    call('ZREM', P .. 'exp', log.spot(state.channel, offset))
  end
end

--- Characters of a text in UTF-8: limits count each as one byte, as streampush/store/drafts.py does.
function log.length(text)
  return #string.gsub(text, '[\128-\191]', '')
end
