--! needs nodes
-- name, started at, now
nodes.namesake(args[1], args[2], nil)
local node = nodes.living(args[1], args[3])
if node and node[2] == args[2] then
  call('HDEL', P .. 'nodes', args[1])
end
return pack(true)
