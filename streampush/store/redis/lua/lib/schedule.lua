--! needs log receipts totals
-- Publications that wait for their time.
--   sched      zset  when it is due: number of its arrival and message id, so that of equal times the first is first
--   schedules  hash  message id: {its name in sched, draft}
-- A `draft`: see lib/appending.lua.
local schedule = {}

--- Keeps a draft until it is due.
function schedule.add(message_id, due, draft)
  schedule.remove(message_id)
  local name = string.format('%020.0f:', totals.add('serial', 1)) .. message_id
  call('ZADD', P .. 'sched', due, name)
  call('HSET', P .. 'schedules', message_id, pack({name, draft}))
  call('HSET', P .. 'msg', message_id, pack({draft[1], 0}))
  totals.add('scheduled', 1)
  log.count('bytes', draft[6])
end

--- The draft of a message that waits, or nil.
function schedule.draft(message_id)
  local packed = call('HGET', P .. 'schedules', message_id)
  return packed and unpack(packed)[2] or nil
end

--- Takes out the draft of a message, and gives it; nil if it does not wait.
function schedule.remove(message_id)
  local packed = call('HGET', P .. 'schedules', message_id)
  if not packed then
    return nil
  end
  receipts.tell(message_id)
  local name, draft = log.spread(unpack(packed))
  call('ZREM', P .. 'sched', name)
  call('HDEL', P .. 'schedules', message_id)
  local _, offset = log.place(message_id)
  if offset == 0 then
    call('HDEL', P .. 'msg', message_id)
  end
  totals.add('scheduled', -1)
  log.count('bytes', 0 - draft[6])
  return draft
end

--- The ids of the first messages that are due, at most so many.
function schedule.due(now, at_most)
  local ids = {}
  for number, name in ipairs(call('ZRANGEBYSCORE', P .. 'sched', '-inf', now, 'LIMIT', 0, at_most)) do
    ids[number] = string.sub(name, 22)
  end
  return ids
end
