--! needs cursors devices
-- device, channel, at, at_most: whether it is new.
local device, channel, at, at_most = args[1], args[2], args[3], args[4]
if not devices.known(device) then
  return refused(3006, 'no device of this id was ever seen')
end
if cursors.follows(device, channel) then
  return pack(false)
end
if call('HLEN', P .. 'sub:' .. device) >= at_most then
  return refused(3007, 'at most ' .. at_most .. ' durable subscriptions')
end
cursors.follow(device, channel, at)
return pack(true)
