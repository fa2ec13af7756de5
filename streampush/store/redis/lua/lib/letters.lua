--! needs log totals
-- Dead letters: copies of what devices did not take.
--   letters:DEVICE    zset  when it was given up: place and message id; a place is lower for each new letter, so that those of one
--                           moment are in the order of their making when they are read from the newest to the oldest
--   letter:DEVICE     hash  message id: {place, weight, channel, offset, attempts, reason, at, facts (as in ent)}
--   letterpay:DEVICE  hash  message id: its body, as in pay; not there if that is empty
--   letterbytes       hash  device: the weight of all its letters, so that they can go without being read
local letters = {}

-- Letters that one new one drives out at most. More than one are too many only after the limit was lowered.
letters.DROP = 100

-- Digits of a place.
letters.PLACE = 16

--- Makes a letter; an earlier one of the same message goes, and the oldest of the device's above `at_most`.
--- `letter`: {channel, offset, attempts, reason, at, facts}; `body`: false if it is empty.
function letters.add(device, message_id, weight, letter, body, at_most)
  letters.drop(device, message_id)
  local place = string.format('%016.0f', 2 ^ 53 - totals.add('lettered', 1))
  call('ZADD', P .. 'letters:' .. device, letter[5], place .. message_id)
  call('HSET', P .. 'letter:' .. device, message_id, pack({place, weight, log.spread(letter)}))
  if body then
    call('HSET', P .. 'letterpay:' .. device, message_id, body)
  end
  letters.weigh(device, 1, weight)
  for _ = 1, math.min(call('ZCARD', P .. 'letters:' .. device) - at_most, letters.DROP) do
    letters.drop(device, letters.oldest(device))
  end
end

--- The message id of the device's oldest letter, of those of one moment the first; there must be one.
function letters.oldest(device)
  local key = P .. 'letters:' .. device
  local at = call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  return call('ZREVRANGEBYSCORE', key, at, at, 'LIMIT', 0, 1)[1]:sub(letters.PLACE + 1)
end

--- What there is of a letter, {letter, body or ''}; empty if there is none.
function letters.read(device, message_id)
  local letter = call('HGET', P .. 'letter:' .. device, message_id)
  return letter and {letter, call('HGET', P .. 'letterpay:' .. device, message_id) or ''} or {}
end

--- Removes a letter; gives whether there was one.
function letters.drop(device, message_id)
  local found = call('HGET', P .. 'letter:' .. device, message_id)
  if not found then
    return false
  end
  local letter = unpack(found)
  call('HDEL', P .. 'letter:' .. device, message_id)
  call('HDEL', P .. 'letterpay:' .. device, message_id)
  call('ZREM', P .. 'letters:' .. device, letter[1] .. message_id)
  letters.weigh(device, -1, 0 - letter[2])
  return true
end

--- So many letters of the device more, and bytes. (Less of them is `0 - n`: Redis does not take Lua's -0 for a number.)
function letters.weigh(device, more, bytes)
  totals.add('letters', more)
  totals.add('bytes', bytes)
  if call('HINCRBY', P .. 'letterbytes', device, bytes) == 0 and call('EXISTS', P .. 'letters:' .. device) == 0 then
    call('HDEL', P .. 'letterbytes', device)
  end
end

--- Removes all letters of a device, however many: Redis frees them beside its work.
function letters.forget(device)
  local held = call('ZCARD', P .. 'letters:' .. device)
  if held == 0 then
    return
  end
  call('UNLINK', P .. 'letters:' .. device, P .. 'letter:' .. device, P .. 'letterpay:' .. device)
  letters.weigh(device, -held, 0 - call('HGET', P .. 'letterbytes', device))
end
