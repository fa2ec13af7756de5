--! needs cursors
-- device: {channel, its cursor} of each; some µs each, and no more than the store keeps of a device.
local found = call('HGETALL', P .. 'cur:' .. args[1])
local listed = {}
for place = 1, #found, 2 do
  listed[#listed + 1] = {found[place], cursors.of_now(unpack(found[place + 1]))}
end
return pack(listed)
