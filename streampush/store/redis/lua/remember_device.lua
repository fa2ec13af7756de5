--! needs devices totals
-- record, max_devices. The record has {device, user, first, last, attributes}, perhaps {token, topic, sandbox, registered}
-- and {close}.
local record, max_devices = args[1], args[2]
local device, key = record.device, P .. 'dev:' .. record.device

local user = call('HGET', key, 'user')
if not user then
  local held = totals.number('devices')
  if held >= max_devices then
    return refused(3007, 'the store holds ' .. held .. ' devices, its limit')
  end
  totals.add('devices', 1)
  call('ZADD', P .. 'devices', 0, device)
elseif user ~= record.user then
  devices.unbind(device, user)
end
devices.bind(device, record.user)
devices.drop_token(device)
call('DEL', key)
call('HSET', key, 'user', record.user, 'first', record.first, 'last', record.last, 'attributes', record.attributes)
if record.token and not devices.lost_token(device, record.token, record.registered) then
  devices.take_token(device, record.token)
  call('HSET', key, 'token', record.token, 'topic', record.topic, 'sandbox', record.sandbox, 'registered', record.registered)
end
if record.close then
  devices.closed(device, record.close)
end
return pack(true)
