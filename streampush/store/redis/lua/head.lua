--! needs epoch log
-- The state of a channel's log. args: channel
-- Gives {epoch, top, floor, id at the floor, urgent}; with -1 for the top if it is not begun.
local state = log.state(args[1]) or log.begin(args[1])
return pack({epoch.now(), state.is_new and -1 or state.top, state.floor, state.floor_id, state.urgent})
