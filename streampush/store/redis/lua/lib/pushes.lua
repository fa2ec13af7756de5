--! needs log outbox receipts
-- How pushes ended.
local pushes = {}

--- Records {message id, device, {at, outcome, reason, apns_id}, lease or '', count} each, and ends the work that is done with it.
--- What a topic's message is told under a lease that has passed on is for its new holder to count.
function pushes.record(records)
  for _, record in ipairs(records) do
    local message_id, device, push, lease, count = log.spread(record)
    local ours = lease == '' or outbox.complete(lease)
    local channel, offset = log.place(message_id)
    if channel and offset > 0 then
      if receipts.is_addressed(channel) then
        receipts.push(message_id, device, push)
      elseif ours then
        receipts.count(message_id, push[2], count)
      end
    end
  end
end
