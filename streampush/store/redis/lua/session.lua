--! needs presence
-- device, now: {run, user, facts}, or false if it is away.
local device, now = args[1], args[2]
local found = call('HMGET', P .. 'sess:' .. device, 'node', 'user', 'facts')
if not found[1] or not presence.lives(found[1], now) then
  return pack(false)
end
return pack({found[1], found[2], unpack(found[3])})
