--! needs epoch reaches
-- {message id, devices} each, whether results are wanted, now: epoch, and for each what reaches.with gives.
local asked, wants_results, now = args[1], args[2], args[3]
local found = {}
for number, one in ipairs(asked) do
  found[number] = reaches.with(one[1], function() return one[2] end, wants_results, now)
end
return pack({epoch.now(), found})
