--! needs epoch totals log retention receipts outbox devices
-- What is new in the logs. Whoever calls has seen to it that nothing can be refused any more.
--   col:CHANNEL  hash  collapse key: {newest offset, newest version, its offset}; '' and 0: none. The empty key: versions without
-- A `draft` is {channel, facts, headers, payload, fallback, bytes that it needs} as streampush/store/redis/entries.py packs it.
local appending = {}

-- Bytes of payload that go along with a wake-up; what is larger is read from the log.
appending.INLINE = 4096

appending.NORMAL, appending.HIGH = 2, 3

-- The last offset that Lua can count to.
appending.LAST = 2 ^ 53 - 1

-- The kind of work that a fallback is: push.values.FALLBACK.
appending.FALLBACK = 'fallback'

--- Why a message cannot be for a channel of a device or user; nil: it can.
function appending.stranger(channel)
  local kind, name = string.match(channel, '^(%l+):(.*)$')
  if (kind == 'device' and not devices.known(name)) or (kind == 'user' and not devices.has_user(name)) then
    return 'no ' .. kind .. ' of this id was ever seen'
  end
  return nil
end

--- Why nothing can be appended to a log, nil if it is not begun; nil: something can. `at_most`: channels that there may be.
function appending.no_log(state, at_most)
  if state then
    return state.top >= appending.LAST and 'the channel has had as many publications as there may be' or nil
  end
  local held = totals.number('channels')
  return held >= at_most and 'the store holds ' .. held .. ' channels, its limit' or nil
end

--- {newest offset, newest version, its offset} of a collapse key.
function appending.newest(channel, collapse_key)
  local packed = call('HGET', P .. 'col:' .. channel, collapse_key)
  return packed and unpack(packed) or {0, '', 0}
end

--- The offset of the version that has overtaken this one; nil: none has, or it has no version. Versions are texts of 20 digits,
--- because they may be larger than the numbers that Lua counts.
function appending.overtaken(channel, entry)
  if entry.version == '' then
    return nil
  end
  local newest = appending.newest(channel, entry.collapse_key)
  return entry.version <= newest[2] and newest[3] or nil
end

--- Appends an entry, wakes whoever waits for it, and drops what is too much in its channel then. Gives {channel, offset, facts,
--- headers, payload}.
function appending.enter(state, entry, headers, payload, history)
  local channel, offset, facts = state.channel, state.top + 1, log.encode(entry)
  state.top = offset
  state.more_entries = state.more_entries + 1
  log.weigh(state, entry.weight)
  if offset == state.floor + 1 then
    state.oldest_at = entry.published_at
  end
  if entry.priority == appending.HIGH then
    state.urgent = offset
  end
  if log.has(entry, log.WANTS_RECEIPT) then
    state.receipted = offset
  end
  if entry.collapse_key ~= '' or entry.version ~= '' then
    appending.supersede(state, offset, entry)
  end
  appending.write(state, offset, entry, facts, headers, payload)
  retention.trim_behind(state, history)
  log.save(state)
  return {channel, offset, facts, headers, payload}
end

function appending.write(state, offset, entry, facts, headers, payload)
  local channel, place = state.channel, log.digits(offset)
  call('HSET', P .. 'ent:' .. channel, place, facts)
  call('HSET', P .. 'msg', entry.message_id, pack({channel, offset}))
  if headers ~= '' or payload ~= '' then
    call('HSET', P .. 'pay:' .. channel, place, pack({headers, payload}))
  end
  if entry.expires_at > 0 then
    local at = log.digits(entry.expires_at)
    state.expiring = state.expiring + 1
    call('ZADD', P .. 'ttl:' .. channel, at, place)
    call('ZADD', P .. 'exp', at, place .. ':' .. channel)
  end
  local inline = #payload <= appending.INLINE and payload
  call('PUBLISH', P .. 'wake:' .. channel, pack({epoch.now(), offset, facts, headers, inline}))
end

--- The earlier entry of the same collapse key is read no more.
function appending.supersede(state, offset, entry)
  local newest = appending.newest(state.channel, entry.collapse_key)
  local earlier = entry.collapse_key ~= '' and newest[1] > state.floor and log.entry(state.channel, newest[1])
  if earlier then
    earlier.superseded_by = offset
    appending.leave_out(state, newest[1], earlier)
    receipts.tell(earlier.message_id)
  end
  newest[1] = offset
  if entry.version ~= '' then
    newest[2], newest[3] = entry.version, offset
  end
  call('HSET', P .. 'col:' .. state.channel, entry.collapse_key, pack(newest))
end

--- Frees and writes an entry that a newer one stands for, or that was taken back. That it expires is no loss any more.
function appending.leave_out(state, offset, entry)
  log.free(state, offset, entry)
  log.write(state.channel, offset, entry)
  if entry.expires_at > 0 then
    retention.forget_expiry(state.channel, offset)
  end
end

--- Appends a draft, whose facts are `entry`, with the work that its fallback is; as `enter`. `state`: nil if the log is not begun.
function appending.publish(draft, entry, state, history)
  if draft[5] ~= '' then
    outbox.add(appending.FALLBACK, entry.message_id, draft[5], entry.published_at)
  end
  return appending.enter(state or log.begin(draft[1]), entry, draft[3], draft[4], history)
end

--- Takes entries back and appends a notice of each; gives the notices as `enter`, in the same order. `places` is a list of
--- {channel, offset, id of the notice, time}. All are freed first: a notice may trim the next entry away.
function appending.take_back(places, history)
  local publishers, ids = {}, {}
  for number, place in ipairs(places) do
    local state, entry = log.state(place[1]), log.entry(place[1], place[2])
    publishers[number], ids[number] = entry.publisher, entry.message_id
    entry.recalled_at = place[4]
    appending.leave_out(state, place[2], entry)
    log.save(state)
    receipts.tell(entry.message_id)
  end
  local notices = {}
  for number, place in ipairs(places) do
    local notice = appending.notice(place[3], place[4], ids[number], publishers[number])
    notices[number] = appending.enter(log.state(place[1]), notice, '', '', history)
  end
  return notices
end

function appending.notice(id, at, recalls, publisher)
  return {
    message_id = id, published_at = at, expires_at = 0, deliver_at = 0, priority = appending.NORMAL, flags = 0, size = 0,
    weight = 0, version = '', superseded_by = 0, recalled_at = 0, recalls = recalls, collapse_key = '', publisher = publisher,
    content_type = '',
  }
end
