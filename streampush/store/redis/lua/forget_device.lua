--! needs cursors devices letters
-- device: whether it was known; 'more' if it follows much for good, which goes with further calls.
local device = args[1]
if cursors.unfollow(device) then
  return pack('more')
end
cursors.forget_device(device)
letters.forget(device)
return pack(devices.forget(device))
