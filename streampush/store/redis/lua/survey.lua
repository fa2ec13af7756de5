--! needs epoch log cursors
-- See push.store_ports.LogStore.survey. args: device, {{channel, {offset ...}} ...}, now
-- Gives for each channel {head as head.lua, cursor or false, {{offset, message id or false, expired behind it} ...}}; and the former
-- epochs.
local device, wants, now = args[1], args[2], args[3]
local of_epoch = epoch.now()

-- Entries that have expired and are not freed yet that one survey looks at, all channels together: seldom any, because sweeps free
-- them. Where there are more, the most that there may be is told.
local room = 5000

--- Those of a channel.
local function expired_in(state)
  if state.expiring == 0 then
    return {}
  end
  local key = P .. 'ttl:' .. state.channel
  local offsets = call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, room)
  if #offsets == room then
    offsets.more = call('ZCOUNT', key, '-inf', now) - #offsets
  end
  room = math.max(1, room - #offsets)
  return offsets
end

--- How many entries behind an offset have expired.
local function count_behind(offset, state, expired)
  if state.expiring == 0 or offset >= state.top then
    return 0
  end
  local count = call('ZCOUNT', P .. 'lost:' .. state.channel, string.format('(%.0f', offset), '+inf') + (expired.more or 0)
  for _, one in ipairs(expired) do
    if tonumber(one) > offset then
      count = count + 1
    end
  end
  return math.min(count, state.top - math.max(offset, state.floor))
end

local function id_at(state, offset)
  if offset == state.floor then
    return state.floor_id ~= '' and state.floor_id
  end
  local inside = offset > state.floor and offset <= state.top
  local entry = inside and log.entry(state.channel, offset)
  return entry and entry.message_id or false
end

--- What is asked of each offset once.
local function spots(state, offsets)
  local expired = expired_in(state)
  local found, seen = {}, {}
  for _, offset in ipairs(offsets) do
    if not seen[offset] then
      seen[offset] = true
      found[#found + 1] = {offset, id_at(state, offset), count_behind(offset, state, expired)}
    end
  end
  return found
end

local surveys = {}
for number, want in ipairs(wants) do
  local state = log.state(want[1]) or log.begin(want[1])
  local cursor = cursors.get(device, want[1])
  local offsets = want[2]
  offsets[#offsets + 1] = state.top
  if cursor and cursor.epoch == of_epoch then
    offsets[#offsets + 1] = cursor.offset
  end
  local head = {of_epoch, state.is_new and -1 or state.top, state.floor, state.floor_id, state.urgent}
  local place = cursor and {cursor.epoch, cursor.offset, cursor.processed, cursor.attempts}
  surveys[number] = {head, place or false, spots(state, offsets)}
end
return pack({surveys, epoch.former()})
