--! needs presence
-- run: the other runs of its node that have said that they live, and that nobody listens to orders for.
local run = args[1]
local former = {}
for _, other in ipairs(call('ZRANGE', P .. 'leases', 0, -1)) do
  if other ~= run and presence.node_of(other) == presence.node_of(run) and not presence.listens(other) then
    former[#former + 1] = other
  end
end
return pack(former)
