-- The nodes of the deployment.
--   nodes      hash  name: {until, started at, facts (what only Python reads), drain, move id, connections to keep}
--   namesakes  hash  {name, started at}: {until, facts} of each run that began earlier than the one in nodes, and takes connections
local nodes = {}

--- What is known of the node, if it lives; nil if not.
function nodes.living(name, now)
  local packed = call('HGET', P .. 'nodes', name)
  local node = packed and unpack(packed)
  return node and node[1] > now and node or nil
end

--- Keeps what an earlier run says of itself beside a later one, or forgets it.
function nodes.namesake(name, started, kept)
  if kept then
    call('HSET', P .. 'namesakes', pack({name, started}), pack(kept))
  else
    call('HDEL', P .. 'namesakes', pack({name, started}))
  end
end

function nodes.keep(name, node)
  call('HSET', P .. 'nodes', name, pack(node))
end
