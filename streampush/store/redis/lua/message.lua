--! needs epoch log receipts schedule
-- message id, whether rows are wanted: false, or {epoch, channel, offset, facts, device and row in turn, what is counted}; of a
-- scheduled one the offset is 0. The caller sorts the rows, of which there are receipts.MAX_ROWS at most: Lua's order of texts is
-- that of a locale.
local message_id, wants_rows = args[1], args[2]
local channel, offset = log.place(message_id)
if not channel then
  return pack(false)
end
if offset == 0 then
  local draft = schedule.draft(message_id)
  return pack(draft and {epoch.now(), channel, 0, pack(draft[2]), {}, {}} or false)
end
local facts = log.entries(channel, offset, offset)[1]
if not receipts.is_addressed(channel) then
  return pack({epoch.now(), channel, offset, facts, {}, call('HGETALL', P .. 'cnt:' .. message_id)})
end
return pack({epoch.now(), channel, offset, facts, wants_rows and call('HGETALL', P .. 'rcp:' .. message_id) or {}, {}})
