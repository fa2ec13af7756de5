-- What the whole store holds, in the order of push.values.StoreStatus.
local found = call('HMGET', P .. 'totals', 'channels', 'publications', 'bytes', 'devices', 'scheduled', 'letters', 'outbox', 'keys')
for place = 1, #found do
  found[place] = tonumber(found[place] or 0)
end
return pack(found)
