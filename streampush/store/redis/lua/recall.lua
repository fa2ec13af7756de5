--! needs epoch totals log appending schedule
-- See push.store_ports.MessageStore.recall.
-- args: message id, id of the notice, time, history, whether the answer has to wait for replicas
-- Gives {epoch, {notice}} or {epoch, {}}; a notice is {channel, offset, facts, headers, payload}.
local message_id, notice_id, at, history, replicated = log.spread(args)
local of_epoch = epoch.now()

local function take_back()
  if schedule.remove(message_id) then
    return {}
  end
  local channel, offset = log.place(message_id)
  local entry = channel and log.entry(channel, offset)
  if not entry or entry.recalls ~= '' then
    return nil
  end
  return entry.recalled_at > 0 and {} or appending.take_back({{channel, offset, notice_id, at}}, history)
end

local notices = take_back()
if not notices then
  return refused(3006, 'no message of this id is scheduled or in a log')
end
if replicated then
  totals.add('awaited', 1) -- see append.lua
end
return pack({of_epoch, notices})
