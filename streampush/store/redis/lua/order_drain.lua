--! needs nodes
-- name, drain, now: whether the node lives, and so will hear of it
local node = nodes.living(args[1], args[3])
if not node then
  return pack(false)
end
node[4] = args[2]
nodes.keep(args[1], node)
return pack(true)
