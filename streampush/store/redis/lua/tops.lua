--! needs epoch
-- How far the logs of these channels go. args: channels
-- Gives {epoch, {top, ...}}; 0 for a log that is not begun.
local tops = {}
for place, channel in ipairs(args[1]) do
  tops[place] = tonumber(call('HGET', P .. 'log:' .. channel, 'top') or 0)
end
return pack({epoch.now(), tops})
