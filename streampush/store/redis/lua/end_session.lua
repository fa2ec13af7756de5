--! needs devices presence
-- device, generation, close: whether it was the present session; 'more' if it follows so much that this must be called again.
local device, generation, close = args[1], args[2], args[3]
local session = presence.stored(device)
if not session or tonumber(session[1]) ~= generation then
  return pack(false)
end
if not presence.step(device, session[2], session[3]) then
  return pack('more')
end
if devices.known(device) then
  devices.closed(device, close)
end
return pack(true)
