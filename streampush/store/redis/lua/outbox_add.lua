--! needs outbox totals
-- kind, key, body, due, max_works, max_bytes: whether it is new.
local kind, key, body, due, max_works, max_bytes = args[1], args[2], args[3], args[4], args[5], args[6]
if outbox.has(kind, key) then
  return pack(false)
end
local full = outbox.full(max_works)
if full then
  return refused(3007, full)
end
local used = call('HGET', P .. 'totals', 'bytes') or '0'
if tonumber(used) + #body > max_bytes then
  return refused(3007, 'the store holds ' .. used .. ' bytes, its limit')
end
return pack(outbox.add(kind, key, body, due))
