--! needs cursors
-- device, channel: whether it was there.
return pack(cursors.leave(args[1], args[2]))
