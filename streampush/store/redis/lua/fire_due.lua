--! needs epoch log appending schedule
-- See push.store_ports.LogStore.fire_due. args: now, most messages, history
-- Gives {epoch, {{channel, offset, facts, headers, payload} ...}}.
local now, at_most, history = log.spread(args)
local of_epoch = epoch.now()
local fired = {}
for _, message_id in ipairs(schedule.due(now, at_most)) do
  local draft = schedule.remove(message_id)
  local entry = log.named(draft[2])
  local too_late = entry.expires_at > 0 and entry.expires_at <= now
  if not (too_late or appending.overtaken(draft[1], entry) or appending.stranger(draft[1])) then
    entry.published_at = now
    fired[#fired + 1] = appending.publish(draft, entry, log.state(draft[1]), history)
  end
end
return pack({of_epoch, fired})
