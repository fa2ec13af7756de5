--! needs nodes
-- name, move id, connections to keep, now: whether the node lives, and so will hear of it
local node = nodes.living(args[1], args[4])
if not node then
  return pack(false)
end
node[5], node[6] = args[2], args[3]
nodes.keep(args[1], node)
return pack(true)
