--! needs cursors devices log presence receipts
-- How devices may be reached with messages. Some µs for each device and message.
local reaches = {}

--- {device, user, token or false, topic, sandbox, registered, follows, cursor or false, run}; nil if it is not known.
function reaches.one(device, channel, now)
  local found = devices.get(device)
  if not found then
    return nil
  end
  local cursor = cursors.get(device, channel)
  return {
    device, found.user, found.token, found.topic, found.sandbox, found.registered, cursors.follows(device, channel),
    cursor and {cursor.epoch, cursor.offset, cursor.processed, cursor.attempts} or false, presence.run(device, now),
  }
end

--- Of several devices those that are known, in their order.
function reaches.of(names, channel, now)
  local found = {}
  for _, device in ipairs(names) do
    found[#found + 1] = reaches.one(device, channel, now)
  end
  return found
end

--- {channel, offset, facts, reaches, results} of a message in a log, with the devices that `names` gives for its channel;
--- false if it is in none. `results`: device and push in turn, if they are wanted.
function reaches.with(message_id, names, wants_results, now)
  local channel, offset = log.place(message_id)
  if not channel or offset == 0 then
    return false
  end
  local asked = names(channel)
  local results = {}
  if wants_results and receipts.is_addressed(channel) then
    for _, device in ipairs(asked) do
      local push = receipts.row(message_id, device)[receipts.PUSH]
      if push then
        results[#results + 1] = device
        results[#results + 1] = push
      end
    end
  end
  return {channel, offset, log.entries(channel, offset, offset)[1], reaches.of(asked, channel, now), results}
end
