--! needs log receipts
-- What goes: entries over the limits of their channel, payloads that have expired. Always a bounded number at a time.
--   behind  set   channels that have more to drop than one step may
--   trimmed zset  floor before that: channel; of those that have dropped what could be read, until somebody asks
-- `history` is what is kept of a channel: {entries, bytes, published before that: too old, now}.
local retention = {}

-- Entries that one append drops of its channel at most, of some 20 us each; what is left goes with the next ones and the sweep.
retention.STEP = 100

-- Rows of receipts that are as much work as an entry: one with many counts for several of them.
retention.ROWS = 4

-- Entries that one step of a sweep drops, of all channels together, or frees.
retention.SWEEP = 200

-- Channels that one sweep looks at for either reason.
retention.CHANNELS = 50

-- Channels that are remembered to have dropped what could be read: streampush/store/trimmed.py.
retention.MAX_TRIMMED = 10000

-- What is left of STEP in this script, however many entries it appends.
retention.left = retention.STEP

--- Whether the oldest entry is to go. The newest one of a channel stays.
function retention.is_over(state, history)
  local entries = state.top - state.floor
  if entries <= 1 then
    return false
  elseif entries > history[1] or state.size > history[2] then
    return true
  elseif state.oldest_at < history[3] then -- or so it was: usually that entry is gone
    state.oldest_at = log.oldest(state).published_at
  end
  return state.oldest_at < history[3]
end

--- Drops what is too much after an append: what is left of STEP, but two entries always (or one with receipts of many devices), so
--- that no log grows while it is appended to. The caller saves the state.
function retention.trim_behind(state, history)
  local dropped = retention.trim(state, history, math.max(2, retention.left))
  retention.left = math.max(0, retention.left - dropped)
end

--- Drops at most so many entries, or what is as much work; gives that. The caller saves the state.
function retention.trim(state, history, at_most)
  local dropped, lossy_from = 0, nil
  while dropped < at_most and retention.is_over(state, history) do
    local entry = log.oldest(state)
    if not lossy_from and retention.is_readable(entry, history[4]) then
      lossy_from = state.floor
    end
    dropped = dropped + 1 + math.floor(retention.drop(state, entry) / retention.ROWS)
  end
  if lossy_from then
    retention.note(state.channel, lossy_from)
  end
  if retention.is_over(state, history) then
    call('SADD', P .. 'behind', state.channel)
  end
  return dropped
end

--- Whether it is a loss to drop the entry.
function retention.is_readable(entry, now)
  return entry.flags < log.FREED and entry.superseded_by == 0 and entry.recalled_at == 0
    and (entry.expires_at == 0 or entry.expires_at > now)
end

--- The channel drops what could be read behind this offset.
function retention.note(channel, floor)
  if call('ZADD', P .. 'trimmed', 'NX', floor, channel) == 1 and call('ZCARD', P .. 'trimmed') > retention.MAX_TRIMMED then
    call('ZPOPMIN', P .. 'trimmed')
  end
end

--- Drops the oldest entry with everything that is known of it; gives how many rows of receipts that were.
function retention.drop(state, entry)
  local channel, offset = state.channel, state.floor + 1
  local place = log.digits(offset)
  state.floor, state.floor_id = offset, entry.message_id
  state.more_entries = state.more_entries - 1
  log.weigh(state, 0 - entry.weight)
  call('HDEL', P .. 'ent:' .. channel, place)
  local is_freed = log.has(entry, log.FREED)
  if not is_freed then
    call('HDEL', P .. 'pay:' .. channel, place)
  end
  if entry.expires_at > 0 then
    state.expiring = state.expiring - 1
    if not is_freed then
      call('ZREM', P .. 'ttl:' .. channel, place)
      call('ZREM', P .. 'exp', place .. ':' .. channel)
    elseif not log.left_out(entry) then
      call('ZREM', P .. 'lost:' .. channel, place)
    end
  end
  if entry.collapse_key ~= '' or entry.version ~= '' then
    retention.forget_newest(channel, offset, entry.collapse_key)
  end
  local there, at = log.place(entry.message_id)
  if there == channel and at == offset then -- an id that was appended again stands for the newer entry
    call('HDEL', P .. 'msg', entry.message_id)
    return receipts.forget(entry.message_id)
  end
  return 0
end

--- That an entry expires, or has, is no loss any more.
function retention.forget_expiry(channel, offset)
  call('ZREM', P .. 'ttl:' .. channel, offset)
  call('ZREM', P .. 'lost:' .. channel, offset)
end

--- An entry that goes is the newest of its collapse key no more, and its version is forgotten.
function retention.forget_newest(channel, offset, collapse_key)
  local packed = call('HGET', P .. 'col:' .. channel, collapse_key)
  local newest = packed and unpack(packed)
  if not newest then
    return
  elseif newest[1] == offset then
    call('HDEL', P .. 'col:' .. channel, collapse_key)
  elseif newest[3] == offset then
    call('HSET', P .. 'col:' .. channel, collapse_key, pack({newest[1], '', 0}))
  end
end

--- Frees the payloads of at most so many entries that have expired, the earliest first; whether there may be more.
function retention.free_expired(now, at_most)
  local spots = call('ZRANGEBYSCORE', P .. 'exp', '-inf', now, 'LIMIT', 0, at_most)
  local states = {}
  for _, spot in ipairs(spots) do
    local offset, channel = string.match(spot, '^(%d+):(.*)$')
    states[channel] = states[channel] or log.state(channel)
    local entry = states[channel] and log.entry(channel, offset)
    if entry then
      retention.free_one(states[channel], tonumber(offset), entry)
    else
      call('ZREM', P .. 'exp', spot) -- Redis has thrown the entry away, see log.gone
    end
  end
  for _, state in pairs(states) do
    log.save(state)
  end
  return #spots == at_most
end

--- Frees an expired entry. It stays expired, also for a clock that is set back.
function retention.free_one(state, offset, entry)
  log.free(state, offset, entry)
  log.write(state.channel, offset, entry)
  if call('ZREM', P .. 'ttl:' .. state.channel, offset) == 1 then
    call('ZADD', P .. 'lost:' .. state.channel, offset, offset)
  end
end

--- Frees what can be freed before an append to the channel is refused for want of room.
function retention.make_room(channel, history, now)
  local state = log.state(channel)
  if state and retention.trim(state, history, retention.STEP) > 0 then
    log.save(state)
  end
  retention.free_expired(now, retention.STEP)
end

--- Drops what is left to drop in some channels; whether there may be more.
function retention.sweep(history)
  local channels = call('SPOP', P .. 'behind', retention.CHANNELS)
  local too_old = string.format('(%.0f', history[3])
  local aged = call('ZRANGEBYSCORE', P .. 'age', '-inf', too_old, 'LIMIT', 0, retention.CHANNELS)
  local more = #channels == retention.CHANNELS or #aged == retention.CHANNELS
  for _, channel in ipairs(aged) do
    channels[#channels + 1] = channel
  end
  local left = retention.SWEEP
  for _, channel in ipairs(channels) do
    local state = log.state(channel)
    if state then
      left = math.max(0, left - retention.trim(state, history, left))
      log.save(state)
    else
      call('ZREM', P .. 'age', channel) -- Redis has thrown it away, see log.gone
    end
  end
  return more or left == 0
end
