--! needs cursors epoch letters log receipts
-- What devices have reached: see push.store_ports.CursorStore.record, whose words are used here.
--
-- One run of the script does a bounded amount of work. What is left is told: the caller goes on from there, in the same order.
-- Where it stops is always something that the device has reached indeed, a cursor on the way to its goal; so nothing is wrong if
-- nobody goes on.
local recording = {entries = {}, states = {}, taken = {}, places = {}}

-- Work of one run, in units of some 10 µs: an entry that is passed is one.
recording.STEP = 500

-- What else costs how much: each mark, letter and move, before it passes anything; the recall of an entry; and bytes that are one
-- unit more of a letter.
recording.ITEM = 3
recording.RECALL = 15
recording.PAGE = 8192

recording.left = recording.STEP

-- The state of a log, if it is begun and the epoch is its own.
function recording.log(channel, of_epoch)
  if of_epoch ~= epoch.now() then
    return nil
  end
  if recording.states[channel] == nil then
    recording.states[channel] = log.state(channel) or false
  end
  return recording.states[channel] or nil
end

-- Many devices pass the same entries of a topic.
function recording.entry(channel, offset)
  local name = channel .. '\0' .. offset
  local entry = recording.entries[name]
  if not entry then
    entry = log.entry(channel, offset) or log.gone()
    recording.entries[name] = entry
  end
  return entry
end

-- Calls `visit(entry, offset)` for the entries with after < offset <= last that are there. Gives `last`, or how far it came.
function recording.walk(state, after, last, visit)
  for offset = math.max(after, state.floor) + 1, math.min(last, state.top) do
    if recording.left <= 0 then
      return offset - 1
    end
    recording.left = recording.left - 1
    visit(recording.entry(state.channel, offset), offset)
  end
  return last
end

-- The same for the entries of a topic that want a receipt.
function recording.walk_wanting(state, after, last, visit)
  if state.receipted <= after then
    return last
  end
  return recording.walk(state, after, last, function(entry, offset)
    if log.has(entry, log.WANTS_RECEIPT) then
      visit(entry, offset)
    end
  end)
end

--- Records {device, channel, epoch, first, last, column, at, count}. Gives where it must go on, 0 if it is done.
function recording.mark(mark)
  local device, channel, of_epoch, first, last, column, at, count = log.spread(mark)
  recording.left = recording.left - recording.ITEM
  local state = recording.log(channel, of_epoch)
  if not state then
    return 0
  end
  local reached
  if receipts.is_addressed(channel) then
    reached = recording.walk(state, first - 1, last, function(entry)
      receipts.reach(entry.message_id, device, column, at)
    end)
  else
    reached = recording.walk_wanting(state, first - 1, last, function(entry)
      receipts.count(entry.message_id, column, count)
    end)
  end
  return reached < last and reached + 1 or 0
end

--- Makes a dead letter of {device, channel, epoch, offset, attempts, reason, at}. Gives whether it is one, on a topic: there no row
--- says so to the moves.
function recording.bury(one, now, at_most)
  local device, channel, of_epoch, offset, attempts, reason, at = log.spread(one)
  recording.left = recording.left - recording.ITEM
  local state = recording.log(channel, of_epoch)
  local facts = state and state.floor < offset and offset <= state.top and log.entries(channel, offset, offset)[1]
  local entry = facts and log.decode(facts)
  if not entry or not log.readable(entry, now) then
    return false
  end
  recording.left = recording.left - math.floor(entry.weight / recording.PAGE)
  local letter = {channel, offset, attempts, reason, at, facts}
  letters.add(device, entry.message_id, entry.weight, letter, log.packed_body(channel, offset), at_most)
  if receipts.is_addressed(channel) then
    receipts.reach(entry.message_id, device, receipts.DEAD_LETTERED, at)
    return false
  end
  if log.has(entry, log.WANTS_RECEIPT) then
    receipts.count(entry.message_id, receipts.DEAD_LETTERED, 1)
  end
  return true
end

--- Moves a cursor: {device, channel, epoch, offset, processed, attempts, at, begun}. Gives whether it is where it shall be; if not,
--- the same move goes on from where it is, unless the cursor was forgotten meanwhile. `is_dead(device, channel, offset)`: of a
--- topic, whether it was dead-lettered just now.
function recording.move(move, goes_on, now, max_cursors, is_dead)
  local device, channel, of_epoch, offset, processed, attempts = log.spread(move)
  recording.left = recording.left - recording.ITEM
  if recording.is_past(of_epoch) then
    return true
  end
  local known = cursors.get(device, channel)
  local from = known and known.epoch == of_epoch and known or {offset = 0, processed = 0}
  if goes_on and from ~= known then
    return true
  end
  if offset < from.offset then
    cursors.touch(device, channel)
    return true
  end
  local reached, reached_processed = recording.pass(move, from, now, is_dead)
  local is_there = reached == offset
  cursors.put(device, channel, of_epoch, reached, math.max(reached_processed, from.processed), is_there and attempts or 0)
  if not known then
    cursors.bound(device, max_cursors)
  end
  return is_there and reached_processed == processed
end

-- Whether it is an epoch that the present one goes on from: what was reached in it before that is in the cursor, and later moves
-- are about publications that were lost with the failover; their offsets may be those of others now.
function recording.is_past(of_epoch)
  return of_epoch ~= epoch.now() and epoch.known(of_epoch)
end

-- Receipts for what a move passes. Gives offset and processed offset that were reached: if there was work left for a part of the
-- offsets only, there is none for what was processed.
function recording.pass(move, from, now, is_dead)
  local channel, of_epoch, offset, processed = move[2], move[3], move[4], move[5]
  local state = recording.log(channel, of_epoch)
  if not state then
    return offset, processed
  end
  local pass = receipts.is_addressed(channel) and recording.pass_addressed or recording.pass_counted
  return pass(state, move, from, now, is_dead)
end

-- The same on a channel of a device or user: times of the device.
function recording.pass_addressed(state, move, from, now)
  local device, _, _, offset, processed, _, at, begun = log.spread(move)
  local reached = recording.walk(state, math.max(from.offset, begun), offset, function(entry)
    recording.delivered(entry, device, at, now)
  end)
  return reached, recording.walk(state, math.max(from.processed, begun), processed, function(entry, passed)
    recording.processed(entry, device, at, state.channel, passed, now)
  end)
end

function recording.delivered(entry, device, at, now)
  local row, known = receipts.row(entry.message_id, device)
  if row[receipts.DELIVERED] or row[receipts.DEAD_LETTERED] or not (row[receipts.WRITTEN] or log.readable(entry, now)) then
    return
  end
  row[receipts.DELIVERED] = at
  receipts.keep(entry.message_id, device, row, known)
end

function recording.processed(entry, device, at, channel, offset, now)
  local row, known = receipts.row(entry.message_id, device)
  if not row[receipts.DELIVERED] or row[receipts.REJECTED] then
    return
  end
  if not row[receipts.PROCESSED] then
    row[receipts.PROCESSED] = at
    receipts.keep(entry.message_id, device, row, known)
  end
  if log.has(entry, log.CLEAR_ON_PROCESSED) and entry.recalled_at == 0 then
    recording.clear(entry, channel, offset, at > 0 and at or now)
  end
end

-- The message is to be recalled, because it was processed on one device. The notice's id is that of push.ids.clearing_id.
function recording.clear(entry, channel, offset, at)
  local name = channel .. '\0' .. offset
  if recording.taken[name] then
    return
  end
  recording.taken[name] = true
  recording.left = recording.left - recording.RECALL
  table.insert(recording.places, {channel, offset, entry.message_id .. '-cleared', at})
end

-- The same on a topic: counts.
function recording.pass_counted(state, move, from, now, is_dead)
  local device, channel, _, offset, processed, _, _, begun = log.spread(move)
  local function counting(column)
    return function(entry, passed)
      if log.readable(entry, now) and not is_dead(device, channel, passed) then
        receipts.count(entry.message_id, column, 1)
      end
    end
  end
  local reached = recording.walk_wanting(state, math.max(from.offset, begun), offset, counting(receipts.DELIVERED))
  return reached, recording.walk_wanting(state, math.max(from.processed, begun), processed, counting(receipts.PROCESSED))
end
