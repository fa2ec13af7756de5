--! needs receipts
-- apns_id: false, or {message id, device, push}.
local found = call('HGET', P .. 'apns', args[1])
if not found then
  return pack(false)
end
local message_id, device = unpack(found)[1], unpack(found)[2]
return pack({message_id, device, (receipts.row(message_id, device))[receipts.PUSH]})
