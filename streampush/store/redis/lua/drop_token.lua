--! needs devices
-- device, token, at: whether the token was the device's, and is not any more.
local device, token, at = args[1], args[2], args[3]
local known = devices.get(device)
if not known or known.token ~= token or known.registered > at then
  return pack(false)
end
devices.drop_token(device)
return pack(true)
