--! needs presence
-- device, generation, follows, channels: nothing if it is not the present session. Two µs a channel.
local device, generation, follows, channels = args[1], args[2], args[3], args[4]
local session = presence.stored(device)
if not session or tonumber(session[1]) ~= generation then
  return pack(false)
end
local key, member = P .. 'follows:' .. device, presence.member(session[2], device)
for _, channel in ipairs(channels) do
  if follows then
    call('SADD', key, channel)
    call('ZADD', P .. 'present:' .. channel, 0, member)
  elseif call('SREM', key, channel) == 1 then
    call('ZREM', P .. 'present:' .. channel, member)
  end
end
return pack(true)
