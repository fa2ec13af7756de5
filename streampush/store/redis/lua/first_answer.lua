--! needs keys totals
-- See push.store_ports.LogStore.first_answer.
-- args: asked, now, whether the answer has to wait for replicas
-- Gives false or {true, message id, channel, offset, epoch, superseded, deliver at}.
local known = keys.answer(args[1], args[2])
if known == 'other' then
  return refused(3009, 'the idempotency key was used for another request')
end
if not known then
  return pack(false)
end
known[1] = true
if args[3] then
  totals.add('awaited', 1) -- see append.lua
end
return pack(known)
