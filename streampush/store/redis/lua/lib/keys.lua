--! needs log totals
-- Idempotency keys: what was answered to a request the first time.
--   idem:SCOPE       hash  key: {fingerprint, expires at, serial number, answer}
--   idemorder:SCOPE  zset  serial number: key
--   idemall          zset  serial number: {scope, key}
-- An `asked` is {scope, key, fingerprint, expires at}.
local keys = {}

-- Keys above a limit that one append forgets: more than one are too many only after the limit was lowered.
keys.FORGET = 10

-- Keys that one step of a sweep forgets, of some 15 us each.
keys.SWEEP = 200

--- The first answer to a request, or nil; 'other' if the key was used for another one.
function keys.answer(asked, now)
  local packed = call('HGET', P .. 'idem:' .. asked[1], asked[2])
  local known = packed and unpack(packed)
  if not known or known[2] <= now then
    return nil
  end
  return known[1] == asked[3] and known[4] or 'other'
end

--- Keeps the first answer to a request, and forgets the oldest of what is too much.
function keys.keep(asked, answer, of_scope, of_all)
  local scope, key = asked[1], asked[2]
  keys.forget(scope, key)
  local serial = totals.add('serial', 1)
  call('HSET', P .. 'idem:' .. scope, key, pack({asked[3], asked[4], serial, answer}))
  call('ZADD', P .. 'idemorder:' .. scope, serial, key)
  call('ZADD', P .. 'idemall', serial, pack({scope, key}))
  totals.add('keys', 1)
  local too_many = call('ZCARD', P .. 'idemorder:' .. scope) - of_scope
  if too_many > 0 then
    for _, oldest in ipairs(call('ZRANGE', P .. 'idemorder:' .. scope, 0, math.min(too_many, keys.FORGET) - 1)) do
      keys.forget(scope, oldest)
    end
  end
  too_many = call('ZCARD', P .. 'idemall') - of_all
  if too_many > 0 then
    for _, oldest in ipairs(call('ZRANGE', P .. 'idemall', 0, math.min(too_many, keys.FORGET) - 1)) do
      keys.forget(log.spread(unpack(oldest)))
    end
  end
end

function keys.forget(scope, key)
  local packed = call('HGET', P .. 'idem:' .. scope, key)
  if packed then
    call('HDEL', P .. 'idem:' .. scope, key)
    call('ZREM', P .. 'idemorder:' .. scope, key)
    call('ZREM', P .. 'idemall', pack({scope, key}))
    totals.add('keys', -1)
  end
end

--- Forgets the oldest keys while they have expired: all live equally long. Whether there may be more.
function keys.sweep(now)
  local oldest = call('ZRANGE', P .. 'idemall', 0, keys.SWEEP - 1)
  for _, packed in ipairs(oldest) do
    local scope, key = log.spread(unpack(packed))
    local kept = call('HGET', P .. 'idem:' .. scope, key)
    if kept and unpack(kept)[2] > now then
      return false
    end
    keys.forget(scope, key)
    if not kept then -- Redis has thrown it away, see log.gone
      call('ZREM', P .. 'idemorder:' .. scope, key)
      call('ZREM', P .. 'idemall', packed)
      totals.add('keys', -1)
    end
  end
  return #oldest == keys.SWEEP
end
