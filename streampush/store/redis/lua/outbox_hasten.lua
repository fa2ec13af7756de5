--! needs outbox
-- kind, keys, due
local kind, keys, due = args[1], args[2], args[3]
for _, key in ipairs(keys) do
  if not outbox.is_leased(kind, key) then
    call('ZADD', P .. 'box:' .. kind, 'XX', 'LT', due, key)
  end
end
return pack(true)
