-- What became of the messages in the logs.
--   rcp:ID  hash  of a message to devices and users; device: {written, delivered, processed, rejected, dead_lettered, push},
--                 times in Unix milliseconds, false: not yet; push: false or {at, outcome, reason, apns_id}
--   cnt:ID  hash  of a topic's message; number of a milestone's column, or name of a push's outcome: how many devices
--   apns    hash  apns_id: {message id, device}, of the pushes that stand in rows
-- All of it goes with the entry.
-- Who watches a message is told that something became of it: PUBLISH msg:ID, of no content, once in a script.
local receipts = {told = {}, WRITTEN = 1, DELIVERED = 2, PROCESSED = 3, REJECTED = 4, DEAD_LETTERED = 5, PUSH = 6}

-- Devices that have a row in the receipts of one message; later ones have none.
receipts.MAX_ROWS = 10000

--- Whether the channel is that of a device or user: then its messages have rows, those of others counts.
function receipts.is_addressed(channel)
  return channel:sub(1, 7) == 'device:' or channel:sub(1, 5) == 'user:'
end

--- The device's row, an empty one if there is none; and whether there is one.
function receipts.row(message_id, device)
  local found = call('HGET', P .. 'rcp:' .. message_id, device)
  if found then
    return unpack(found), true
  end
  return {false, false, false, false, false, false}, false
end

--- Something became of the message: nodes where somebody watches it read it again.
function receipts.tell(message_id)
  if not receipts.told[message_id] then
    receipts.told[message_id] = true
    call('PUBLISH', P .. 'msg:' .. message_id, '')
  end
end

--- Keeps a row that `receipts.row` gave; gives whether there was room for it.
function receipts.keep(message_id, device, row, known)
  local key = P .. 'rcp:' .. message_id
  if not known and call('HLEN', key) >= receipts.MAX_ROWS then
    return false
  end
  call('HSET', key, device, pack(row))
  receipts.tell(message_id)
  return true
end

--- The device has reached a milestone; the first time stands.
function receipts.reach(message_id, device, column, at)
  local row, known = receipts.row(message_id, device)
  if not row[column] then
    row[column] = at
    receipts.keep(message_id, device, row, known)
  end
end

--- So many devices more, by the number of a milestone's column or the name of an outcome.
function receipts.count(message_id, field, more)
  call('HINCRBY', P .. 'cnt:' .. message_id, field, more)
  receipts.tell(message_id)
end

--- How a push to the device ended; the newest stands, of equal ones the last.
function receipts.push(message_id, device, push)
  local row, known = receipts.row(message_id, device)
  local earlier = row[receipts.PUSH]
  if earlier and earlier[1] > push[1] then
    return
  end
  row[receipts.PUSH] = push
  if not receipts.keep(message_id, device, row, known) then
    return
  end
  receipts.forget_push(message_id, device, earlier)
  if push[4] ~= '' then
    call('HSET', P .. 'apns', push[4], pack({message_id, device}))
  end
end

--- A push that stood in a row does so no more: its apns_id finds nothing.
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

--- The message has left the log. A step for each device that has a row: a topic's message has none. Gives how many had.
function receipts.forget(message_id)
  local key = P .. 'rcp:' .. message_id
  local found = call('HGETALL', key)
  for number = 1, #found, 2 do
    receipts.forget_push(message_id, found[number], unpack(found[number + 1])[receipts.PUSH])
  end
  call('UNLINK', key, P .. 'cnt:' .. message_id)
  return #found / 2
end
