-- The nodes of the deployment.
--   nodes  hash  name: {until, started at, facts (what only Python reads), drain, move id, connections to keep}
local nodes = {}

--- What is known of the node, if it lives; nil if not.
function nodes.living(name, now)
  local packed = call('HGET', P .. 'nodes', name)
  local node = packed and unpack(packed)
  return node and node[1] > now and node or nil
end

function nodes.keep(name, node)
  call('HSET', P .. 'nodes', name, pack(node))
end
