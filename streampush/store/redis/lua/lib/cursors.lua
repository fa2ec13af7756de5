--! needs epoch totals
-- How far devices are, and what they follow for good.
--   cur:DEVICE         hash  channel: {epoch, offset, processed, attempts}
--   curmoved:DEVICE    zset  number of its last move: channel, so that the one not moved for longest is found
--   curkept:DEVICE     zset  the same of channels with a durable subscription, which are dropped last
--   sub:DEVICE         hash  channel: since when the subscription is durable
--   followers:CHANNEL  zset  the devices for whom it is, of one score: in the order of their bytes
local cursors = {}

-- Cursors that one call of `bound` drops at most; what a lowered limit leaves goes with the next ones.
cursors.DROP = 1000

-- Channels of durable subscriptions that one step leaves; some µs each.
cursors.UNFOLLOW = 300

--- The cursor, a table with epoch, offset, processed and attempts, or nil. One of a former epoch that the present one goes on
--- from is of the present. Asks epoch.now(): a script that writes must have done so before.
function cursors.get(device, channel)
  local found = call('HGET', P .. 'cur:' .. device, channel)
  if not found then
    return nil
  end
  local one = cursors.of_now(unpack(found))
  return {epoch = one[1], offset = one[2], processed = one[3], attempts = one[4]}
end

function cursors.of_now(cursor)
  if epoch.known(cursor[1]) then
    cursor[1] = epoch.now()
  end
  return cursor
end

--- Writes a cursor, the one of the device that has moved last.
function cursors.put(device, channel, of_epoch, offset, processed, attempts)
  call('HSET', P .. 'cur:' .. device, channel, pack({of_epoch, offset, processed, attempts}))
  cursors.touch(device, channel)
end

--- The cursor has moved last of all of the device.
function cursors.touch(device, channel)
  call('ZADD', cursors.order(device, cursors.follows(device, channel)), totals.add('moves', 1), channel)
end

--- Where the moves of the device's cursors are in order: of durable subscriptions, or of others.
function cursors.order(device, durable)
  return P .. (durable and 'curkept:' or 'curmoved:') .. device
end

--- Drops what is above the limit: what was not moved for longest, channels of durable subscriptions last.
function cursors.bound(device, at_most)
  local too_many = call('HLEN', P .. 'cur:' .. device) - at_most
  for _ = 1, math.min(too_many, cursors.DROP) do
    local oldest = call('ZRANGE', cursors.order(device, false), 0, 0)[1] or call('ZRANGE', cursors.order(device, true), 0, 0)[1]
    cursors.forget(device, oldest)
  end
end

function cursors.forget(device, channel)
  call('HDEL', P .. 'cur:' .. device, channel)
  call('ZREM', cursors.order(device, false), channel)
  call('ZREM', cursors.order(device, true), channel)
end

--- Whether the device's subscription to the channel is durable.
function cursors.follows(device, channel)
  return call('HEXISTS', P .. 'sub:' .. device, channel) == 1
end

--- Ends durable subscriptions of the device, a bounded number; gives whether more are left.
function cursors.unfollow(device)
  local key = P .. 'sub:' .. device
  if call('HLEN', key) == 0 then
    return false
  end
  for _, channel in ipairs(call('HRANDFIELD', key, cursors.UNFOLLOW)) do
    cursors.leave(device, channel)
  end
  return call('HLEN', key) > 0
end

--- Ends one durable subscription; gives whether there was one.
function cursors.leave(device, channel)
  if call('HDEL', P .. 'sub:' .. device, channel) == 0 then
    return false
  end
  call('ZREM', P .. 'followers:' .. channel, device)
  cursors.reorder(device, channel, false)
  return true
end

--- Begins one that is not there.
function cursors.follow(device, channel, at)
  call('HSET', P .. 'sub:' .. device, channel, at)
  call('ZADD', P .. 'followers:' .. channel, 0, device)
  cursors.reorder(device, channel, true)
end

--- The cursor, if there is one, belongs to a durable subscription from now on, or no longer.
function cursors.reorder(device, channel, durable)
  local before = cursors.order(device, not durable)
  local moved = call('ZSCORE', before, channel)
  if moved then
    call('ZREM', before, channel)
    call('ZADD', cursors.order(device, durable), moved, channel)
  end
end

--- Drops all cursors; Redis frees them beside its work.
function cursors.forget_device(device)
  call('UNLINK', P .. 'cur:' .. device, cursors.order(device, false), cursors.order(device, true))
end
