--! needs presence totals
-- node, last: 0 if it is done, else what is to be given as `last` in the next step. Takes the node's sessions away, those up to
-- the generation `last`, 0: all that there are now. The first step that leaves some ends the lease: from then on none is present.
local node, last = args[1], args[2]
if last == 0 then
  last = totals.number('generation')
end
local key, room = P .. 'nodeof:' .. node, presence.STEP
while room > 0 do
  local device = call('ZRANGEBYSCORE', key, '-inf', last, 'LIMIT', 0, 1)[1]
  if not device then
    call('HDEL', P .. 'leases', node)
    return pack(0)
  end
  room = room - 5 - presence.leave(device, node, room)
  if presence.is_idle(device) then
    presence.remove(device, node, presence.stored(device)[3])
  end
end
call('HSET', P .. 'leases', node, 0)
return pack(last)
