-- token: {device, all fields of its record}, or false if nobody has it.
local device = call('HGET', P .. 'token', args[1])
return pack(device and {device, call('HGETALL', P .. 'dev:' .. device)})
