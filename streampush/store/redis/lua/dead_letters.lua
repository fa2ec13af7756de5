--! needs letters
-- device, before (0: all), limit: letters as they lie in Redis, the newest first. Not packed again: each may have a large payload.
local device, before, limit = args[1], args[2], args[3]
local newest = before > 0 and '(' .. string.format('%.0f', before) or '+inf'
local found = call('ZREVRANGEBYSCORE', P .. 'letters:' .. device, newest, '-inf', 'LIMIT', 0, limit)
for number, member in ipairs(found) do
  found[number] = call('HGET', P .. 'letter:' .. device, member:sub(letters.PLACE + 1))
end
return found
