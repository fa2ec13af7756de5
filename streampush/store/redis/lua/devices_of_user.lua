--! needs devices
-- user, limit: of each device {id, all fields of its record}, in order of the ids.
local found = devices.of_user(args[1], args[2])
for number, device in ipairs(found) do
  found[number] = {device, call('HGETALL', P .. 'dev:' .. device)}
end
return pack(found)
