--! needs totals
-- The devices, whom they belong to, and their push tokens. A name in Lua is compared by Redis only: `<` would ask the locale.
--   dev:DEVICE  hash  what is known of it; without the field `token` it has none, without `close_code` no connection has ended
--   devices     zset  all ids, of one score: in the order of their bytes
--   user:USER   zset  the ids of the user's devices, the same
--   token       hash  push token: the device that has it
local devices = {}

--- Whether it was ever remembered.
function devices.known(device)
  return call('EXISTS', P .. 'dev:' .. device) == 1
end

--- Whether a device is bound to the user; to the empty one none is.
function devices.has_user(user)
  return call('EXISTS', P .. 'user:' .. user) == 1
end

--- What it takes to reach a device, a table with user, token (false: none), topic, sandbox (0 or 1) and registered; nil if it
--- is not known.
function devices.get(device)
  local found = call('HMGET', P .. 'dev:' .. device, 'user', 'token', 'topic', 'sandbox', 'registered')
  if not found[1] then
    return nil
  end
  local sandbox, registered = tonumber(found[4] or 0), tonumber(found[5] or 0)
  return {user = found[1], token = found[2], topic = found[3] or '', sandbox = sandbox, registered = registered}
end

--- The ids of the first `limit` devices of a user, in their order.
function devices.of_user(user, limit)
  return call('ZRANGEBYLEX', P .. 'user:' .. user, '-', '+', 'LIMIT', 0, limit)
end

--- The device can be reached no more; its token is free.
function devices.drop_token(device)
  local key = P .. 'dev:' .. device
  local token = call('HGET', key, 'token')
  if token then
    call('HDEL', P .. 'token', token)
    call('HDEL', key, 'token', 'topic', 'sandbox', 'registered')
  end
end

--- Whether another device has registered this token, and later.
function devices.lost_token(device, token, registered)
  local other = call('HGET', P .. 'token', token)
  return other and other ~= device and tonumber(call('HGET', P .. 'dev:' .. other, 'registered')) > registered
end

--- Takes a token away from whoever has it, for this device.
function devices.take_token(device, token)
  local other = call('HGET', P .. 'token', token)
  if other and other ~= device then
    devices.drop_token(other)
  end
  call('HSET', P .. 'token', token, device)
end

--- Nothing of the record is left. Gives whether there was one.
function devices.forget(device)
  local key = P .. 'dev:' .. device
  local user = call('HGET', key, 'user')
  if not user then
    return false
  end
  devices.drop_token(device)
  devices.unbind(device, user)
  call('DEL', key)
  call('ZREM', P .. 'devices', device)
  totals.add('devices', -1)
  return true
end

function devices.bind(device, user)
  if user ~= '' then
    call('ZADD', P .. 'user:' .. user, 0, device)
  end
end

function devices.unbind(device, user)
  if user ~= '' then
    call('ZREM', P .. 'user:' .. user, device)
  end
end

--- How its last connection ended. `close`: {code, advice, detail, at}.
function devices.closed(device, close)
  local key = P .. 'dev:' .. device
  call('HSET', key, 'close_code', close[1], 'close_advice', close[2], 'close_detail', close[3], 'close_at', close[4])
end
