--! needs epoch totals log retention appending keys schedule outbox
-- See push.store_ports.LogStore.append, here for several drafts, one after the other: what one is refused for, or fails of, is its
-- own affair.
-- args: {{draft, asked (false: no idempotency key)} ...}, now, history, {most channels, bytes, scheduled, works, keys of a scope,
--   of all}, whether the answers have to wait for replicas
-- Gives {epoch, {answer ...}}. An answer is the offset of what is new in its log, or {duplicate, message id, channel, offset, epoch,
-- superseded, deliver at} of what is not, or {code, why it is refused}, or {0, what failed}.
local drafts, now, history, limits, replicated = log.spread(args)
local max_channels, max_bytes, max_scheduled, max_works, keys_of_scope, keys_of_all = log.spread(limits)
local of_epoch = epoch.now()
local QUOTA, UNKNOWN, DUPLICATE, FAULT = 3007, 3006, 3009, 0

-- What a Redis that takes no writes says to the first one of a script, and to no later one.
local NO_WRITES = {OOM = true, READONLY = true, MISCONF = true, NOREPLICAS = true, MASTERDOWN = true}

--- Why there is no room for the draft, or nil; and the state of the log, nil if it is not begun.
local function no_room(draft, entry)
  local channel, more = draft[1], draft[6]
  if totals.number('bytes') + more > max_bytes then
    retention.make_room(channel, history, now)
    local held = totals.number('bytes')
    if held + more > max_bytes then
      return 'the store holds ' .. held .. ' bytes, its limit', nil
    end
  end
  if entry.deliver_at > 0 then
    local waiting = totals.number('scheduled')
    return waiting >= max_scheduled and 'the store holds ' .. waiting .. ' scheduled messages, its limit' or nil, nil
  end
  local state = log.state(channel)
  return draft[5] ~= '' and outbox.full(max_works) or appending.no_log(state, max_channels), state
end

--- The place that the draft is given: offset, whether a newer version has overtaken it, and when it is due; or nil, and why there is
--- no room.
local function place(draft, entry)
  local newer = appending.overtaken(draft[1], entry)
  if newer then
    return newer, true, 0
  end
  local problem, state = no_room(draft, entry)
  if problem then
    return nil, problem
  end
  if entry.deliver_at > 0 then
    schedule.add(entry.message_id, entry.deliver_at, draft)
    return 0, false, entry.deliver_at
  end
  return appending.publish(draft, entry, state, history)[2], false, 0
end

--- An answer for which nothing may have been written.
local function stood(answer)
  if replicated then
    totals.add('awaited', 1) -- WAIT waits for what its connection wrote: without this nothing
  end
  return answer
end

--- The answer to one draft.
local function accept(draft, asked)
  local stranger = appending.stranger(draft[1])
  if stranger then
    return {UNKNOWN, stranger}
  end
  local known = asked and keys.answer(asked, now)
  if known == 'other' then
    return {DUPLICATE, 'the idempotency key was used for another request'}
  elseif known then
    known[1] = true
    return stood(known)
  end
  local entry = log.named(draft[2])
  local offset, superseded, due = place(draft, entry)
  if not offset then
    return {QUOTA, superseded}
  end
  local is_new = not superseded and due == 0
  if is_new and not asked then
    return offset
  end
  local answer = {false, entry.message_id, draft[1], offset, of_epoch, superseded, due}
  if asked then
    keys.keep(asked, answer, keys_of_scope, keys_of_all)
  end
  return is_new and offset or stood(answer)
end

local answers = {}
for number, one in ipairs(drafts) do
  local done, answer = pcall(accept, one[1], one[2])
  if not done then
    local problem = type(answer) == 'table' and answer.err or tostring(answer)
    if NO_WRITES[string.match(problem, '^%u+')] then
      error({err = problem}) -- it is that of all, and nothing was written: those before it wanted nothing to be
    end
    answer = {FAULT, problem}
  end
  answers[number] = answer
end
return pack({of_epoch, answers})
