--! needs nodes
-- name, started at, facts, until, now: what is wished of the node, {drain, move id, connections to keep}.
local name, started, facts, ends, now = args[1], args[2], args[3], args[4], args[5]
local node = nodes.living(name, now)
local order = {false, '', 0}
if node and node[2] > started then
  return pack(order) -- a former run still speaks
end
if node and node[2] == started then
  order = {node[4], node[5], node[6]}
end
nodes.keep(name, {ends, started, facts, order[1], order[2], order[3]})
return pack(order)
