--! needs devices epoch reaches
-- message ids, limit, whether results are wanted, now: epoch, and for each what reaches.with gives.
local asked, limit, wants_results, now = args[1], args[2], args[3], args[4]

local function devices_of(channel)
  return channel:sub(1, 5) == 'user:' and devices.of_user(channel:sub(6), limit) or {}
end

local found = {}
for number, message_id in ipairs(asked) do
  found[number] = reaches.with(message_id, devices_of, wants_results, now)
end
return pack({epoch.now(), found})
