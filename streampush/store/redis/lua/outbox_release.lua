--! needs outbox
-- token, due: whether the lease was good.
local work = outbox.held(args[1])
if not work then
  return pack(false)
end
outbox.put_lease(work[1], work[2], work[3], '')
call('ZADD', P .. 'box:' .. work[1], args[2], work[2])
return pack(true)
