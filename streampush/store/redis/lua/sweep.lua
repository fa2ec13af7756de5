--! needs retention keys presence
-- Drops and frees a bounded number of things that are too old; whether there is more to do. args: now, history
local now, history = args[1], args[2]
local more = retention.sweep(history)
more = retention.free_expired(now, retention.SWEEP) or more
more = keys.sweep(now) or more
more = presence.sweep(now) or more
return pack(more)
