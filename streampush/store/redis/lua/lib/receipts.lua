-- What became of the messages in the logs.
--
-- rcp:ID  of a message to devices and users: device -> {written, delivered, processed, rejected, dead_lettered, push},
--         times in Unix milliseconds, false: not yet; push: false or {at, outcome, reason, apns_id}
-- cnt:ID  of a topic's message: number of a milestone's column, or name of a push's outcome -> how many devices
-- apns    apns_id -> {message id, device}, of the pushes that stand in rows
--
-- All of it goes with the entry.

local receipts = {WRITTEN = 1, DELIVERED = 2, PROCESSED = 3, REJECTED = 4, DEAD_LETTERED = 5, PUSH = 6}

-- The push in a row is followed by another one, or goes: its apns_id finds nothing any more.
function receipts.forget_push(message_id, device, push)
  local apns_id = push and push[4] or ''
  if apns_id == '' then
    return
  end
  local packed = call('HGET', P .. 'apns', apns_id)
  local found = packed and unpack(packed)
  if found and found[1] == message_id and found[2] == device then
    call('HDEL', P .. 'apns', apns_id)
  end
end

-- The message has left the log. One step for each device that has a row: a topic's message has none.
function receipts.forget(message_id)
  local key = P .. 'rcp:' .. message_id
  local found = call('HGETALL', key)
  for number = 1, #found, 2 do
    receipts.forget_push(message_id, found[number], unpack(found[number + 1])[receipts.PUSH])
  end
  call('UNLINK', key, P .. 'cnt:' .. message_id)
end
