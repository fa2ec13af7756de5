--! needs outbox
-- kind, limit, now, until, nonce: {token, key, body, attempts} of each. Some µs each.
local kind, limit, now, ends, nonce = args[1], args[2], args[3], args[4], args[5]
local leased = {}
for number, key in ipairs(call('ZRANGEBYSCORE', P .. 'box:' .. kind, '-inf', now, 'LIMIT', 0, limit)) do
  local before = call('HGET', P .. 'boxleases:' .. kind, key)
  local attempts = 1 + (before and unpack(before)[1] or 0)
  outbox.put_lease(kind, key, attempts, nonce)
  call('ZADD', P .. 'box:' .. kind, ends, key)
  leased[number] = {outbox.token(nonce, kind, key), key, call('HGET', P .. 'boxes:' .. kind, key), attempts}
end
return pack(leased)
