--! needs nodes
-- name, started at, facts, until, now, whether it drains: what is wished of the node, {drain, move id, connections to keep}. A run
-- that is not known any more (Redis was away for longer than it counts as there, or has lost it) goes on with what it does.
local name, started, facts, ends, now, drains = args[1], args[2], args[3], args[4], args[5], args[6]
local node = nodes.living(name, now)
local order = {drains, '', 0}
if node and node[2] > started then
  nodes.namesake(name, started, not drains and {ends, facts}) -- an earlier run still speaks
  return pack({false, '', 0})
end
nodes.namesake(name, started, nil)
if node and node[2] == started then
  order = {node[4], node[5], node[6]}
end
nodes.keep(name, {ends, started, facts, order[1], order[2], order[3]})
return pack(order)
