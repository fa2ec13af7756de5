--! needs retention keys presence
-- Drops and frees a bounded number of things that are too old; whether there is more to do.
-- args: part of it, each of which is a step of its own; now; history
local part, now, history = args[1], args[2], args[3]
local sweep = {
  logs = function() return retention.sweep(history) end,
  payloads = function() return retention.free_expired(now, retention.SWEEP) end,
  keys = function() return keys.sweep(now) end,
  nodes = function() return presence.sweep(now) end,
}
return pack(sweep[part]())
