--! needs presence
-- user, after, limit, now: {{device, run, user, facts} ..., the id behind which to go on or false}. Looks at 200 devices at most.
local user, after, limit, now = args[1], args[2], args[3], args[4]
local look = 200
local online = call('ZRANGEBYLEX', P .. 'online:' .. user, '(' .. after, '+', 'LIMIT', 0, look)
local sessions = {}
for _, device in ipairs(online) do
  if #sessions == limit then
    return pack({sessions, false})
  end
  local found = call('HMGET', P .. 'sess:' .. device, 'node', 'user', 'facts')
  if presence.lives(found[1], now) then
    sessions[#sessions + 1] = {device, found[1], found[2], unpack(found[3])}
  end
end
return pack({sessions, #online == look and online[look]})
