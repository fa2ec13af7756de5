--! needs cursors
-- device, channel
cursors.forget(args[1], args[2])
return pack(true)
