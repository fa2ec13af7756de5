--! needs letters
-- device, before (0: all), limit: what letters.read gives of each, the newest first. Not packed again: each may have a large body.
local device, before, limit = args[1], args[2], args[3]
local newest = before > 0 and '(' .. string.format('%.0f', before) or '+inf'
local found = call('ZREVRANGEBYSCORE', P .. 'letters:' .. device, newest, '-inf', 'LIMIT', 0, limit)
for number, member in ipairs(found) do
  found[number] = letters.read(device, member:sub(letters.PLACE + 1))
end
return found
