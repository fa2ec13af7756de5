--! needs totals
-- The work of senders: kept until it is done, taken under leases.
--   box:KIND        zset  when it is due, or its lease ends: key
--   boxes:KIND      hash  key: body
--   boxleases:KIND  hash  key: {attempts, nonce of its lease, empty between leases}, of what was leased before
-- A lease's token is NONCE/LENGTH/KIND KEY, without the space: who has one can be asked without another index, and because the
-- nonce is random, and not a number of ours, a failover that forgets leases gives no token a second time.
local outbox = {}

--- Why there is no room for new work; nil if there is.
function outbox.full(max_works)
  local held = totals.number('outbox')
  if held >= max_works then
    return 'the store holds ' .. held .. ' entries of work, its limit'
  end
  return nil
end

--- Why one work may not become so many; nil if it may. There is room for twice what the limit says, see store/work.py.
function outbox.too_much(becomes, max_works)
  local held = totals.number('outbox')
  if becomes > 1 and held - 1 + becomes > 2 * max_works then
    return 'the store holds ' .. held .. ' entries of work, 2 times its limit is ' .. max_works
  end
  return nil
end

function outbox.has(kind, key)
  return call('HEXISTS', P .. 'boxes:' .. kind, key) == 1
end

--- Adds work, whatever the limits say; false, and nothing is changed, if there is some of that kind and key.
function outbox.add(kind, key, body, due)
  if call('HSETNX', P .. 'boxes:' .. kind, key, body) == 0 then
    return false
  end
  call('ZADD', P .. 'box:' .. kind, due, key)
  totals.add('outbox', 1)
  totals.add('bytes', #body)
  return true
end

--- Adds several, {kind, key, body, due} each.
function outbox.add_all(works)
  for _, work in ipairs(works) do
    outbox.add(work[1], work[2], work[3], work[4])
  end
end

--- How many of several would be new; of equal ones one. `gone`: a work that is not there any more then, or nil.
function outbox.count_new(works, gone)
  local count, seen = 0, {}
  for _, work in ipairs(works) do
    local name = outbox.name(work[1], work[2])
    if not seen[name] and (name == gone or not outbox.has(work[1], work[2])) then
      seen[name] = true
      count = count + 1
    end
  end
  return count
end

--- Kind and key as one text, of which each can be had again.
function outbox.name(kind, key)
  return #kind .. '/' .. kind .. key
end

function outbox.token(nonce, kind, key)
  return nonce .. '/' .. outbox.name(kind, key)
end

--- The work that is under this lease, {kind, key, attempts}; nil if it has passed to somebody else.
function outbox.held(token)
  local nonce, size, rest = token:match('^([^/]+)/(%d+)/(.*)$')
  if not nonce then
    return nil
  end
  local kind, key = rest:sub(1, size), rest:sub(size + 1)
  local lease = call('HGET', P .. 'boxleases:' .. kind, key)
  local known = lease and unpack(lease)
  return known and known[2] == nonce and {kind, key, known[1]} or nil
end

--- The work is under a lease from now on, or with an empty nonce under none.
function outbox.put_lease(kind, key, attempts, nonce)
  call('HSET', P .. 'boxleases:' .. kind, key, pack({attempts, nonce}))
end

--- Whether somebody has a lease of the work, one that has ended too.
function outbox.is_leased(kind, key)
  local lease = call('HGET', P .. 'boxleases:' .. kind, key)
  return lease and unpack(lease)[2] ~= ''
end

--- The work is done, if the lease has not passed to somebody else.
function outbox.complete(token)
  local work = outbox.held(token)
  if not work then
    return false
  end
  outbox.remove(work[1], work[2])
  return true
end

function outbox.remove(kind, key)
  totals.add('bytes', 0 - call('HSTRLEN', P .. 'boxes:' .. kind, key))
  totals.add('outbox', -1)
  call('HDEL', P .. 'boxes:' .. kind, key)
  call('HDEL', P .. 'boxleases:' .. kind, key)
  call('ZREM', P .. 'box:' .. kind, key)
end
