--! needs epoch log
-- See push.store_ports.LogStore.read. args: channel, after, most messages, most bytes, now, most entries to look at
-- Gives {head as head.lua, next offset, expired, {{offset, facts, body or ''} ...}}; facts and body as they lie in Redis.
local channel, after, max_messages, max_bytes, now, look_at = log.spread(args)
local state = log.state(channel)
if not state then
  return pack({{epoch.now(), -1, 0, '', 0}, after, 0, {}})
end
local start = math.max(after, state.floor)
local next_offset, expired, size = start, 0, 0
local found, offsets, sizes, whole = {}, {}, {}, {}

log.walk(state, start, start + look_at, function(offset, entry, packed)
  if log.readable(entry, now) then
    size = size + entry.size
    if #found > 0 and (size > max_bytes or #found >= max_messages) then
      return true
    end
    found[#found + 1] = {offset, packed}
    offsets[#offsets + 1] = offset
    sizes[#sizes + 1] = entry.size
  elseif not log.left_out(entry) then
    expired = expired + 1
  end
  next_offset = offset
end)

for first = 1, #offsets, log.CHUNK do
  local last = math.min(first + log.CHUNK - 1, #offsets)
  for place, body in ipairs(call('HMGET', P .. 'pay:' .. channel, log.spread(offsets, first, last))) do
    local number = first + place - 1
    if body or sizes[number] == 0 then
      found[number][3] = body or ''
      whole[#whole + 1] = found[number]
    else
      expired = expired + 1 -- Redis has thrown it away, see log.gone
    end
  end
end
return pack({{epoch.now(), state.top, state.floor, state.floor_id, state.urgent}, next_offset, expired, whole})
