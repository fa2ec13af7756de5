--! needs epoch totals log retention appending keys schedule outbox
-- See push.store_ports.LogStore.append.
-- args: draft, asked (false: no idempotency key), now, history, {most channels, bytes, scheduled, works, keys of a scope, of all},
--   whether the answer has to wait for replicas
-- Gives {duplicate, message id, channel, offset, epoch, superseded, deliver at}.
local draft, asked, now, history, limits, replicated = log.spread(args)
local max_channels, max_bytes, max_scheduled, max_works, keys_of_scope, keys_of_all = log.spread(limits)
local channel, entry, fallback = draft[1], log.named(draft[2]), draft[5]
local of_epoch = epoch.now()
local QUOTA, UNKNOWN, DUPLICATE = 3007, 3006, 3009

--- Why there is no room for the draft, or nil; and the state of the log, nil if it is not begun.
local function no_room()
  if totals.number('bytes') + draft[6] > max_bytes then
    retention.make_room(channel, history, now)
    local held = totals.number('bytes')
    if held + draft[6] > max_bytes then
      return 'the store holds ' .. held .. ' bytes, its limit', nil
    end
  end
  if entry.deliver_at > 0 then
    local waiting = totals.number('scheduled')
    return waiting >= max_scheduled and 'the store holds ' .. waiting .. ' scheduled messages, its limit' or nil, nil
  end
  local state = log.state(channel)
  return fallback ~= '' and outbox.full(max_works) or appending.no_log(state, max_channels), state
end

--- The answer, or nil and why there is no room.
local function accept()
  local newer = appending.overtaken(channel, entry)
  if newer then
    return {false, entry.message_id, channel, newer, of_epoch, true, 0}
  end
  local problem, state = no_room()
  if problem then
    return nil, problem
  end
  if entry.deliver_at > 0 then
    schedule.add(entry.message_id, entry.deliver_at, draft)
    return {false, entry.message_id, channel, 0, of_epoch, false, entry.deliver_at}
  end
  local offset = appending.publish(draft, entry, state, history)[2]
  return {false, entry.message_id, channel, offset, of_epoch, false, 0}
end

local stranger = appending.stranger(channel)
if stranger then
  return refused(UNKNOWN, stranger)
end
local known = asked and keys.answer(asked, now)
if known == 'other' then
  return refused(DUPLICATE, 'the idempotency key was used for another request')
end
local answer, problem = known, nil
if known then
  known[1] = true
else
  answer, problem = accept()
end
if not answer then
  return refused(QUOTA, problem)
end
if asked and not known then
  keys.keep(asked, answer, keys_of_scope, keys_of_all)
end
if replicated then
  totals.add('awaited', 1) -- WAIT waits for what its connection wrote: without this nothing, if the answer was known already
end
return pack(answer)
