--! needs totals
-- Who is connected, on whatever node.
--   sess:DEVICE      hash  its present session: generation, node, user, facts (what only Python reads)
--   follows:DEVICE   set   the channels that this session follows
--   present:CHANNEL  zset  who follows it, as LENGTH:NODE:DEVICE, of one score: those of one node lie together, in order
--   online:USER      zset  the devices of the user's sessions, of one score
--   nodeof:NODE      zset  generation: device, of each session of the node
--   leases           zset  until when it lives: node; one that never said so lives
local presence = {untils = {}}

-- What one step takes away, in channels that a session is taken out of: some µs each on a busy machine, so one or two ms.
presence.STEP = 400

-- Milliseconds after the end of its lease for which a node may come back to its sessions. Where nodes have new names with every
-- start, what those that crashed have left would never go otherwise.
presence.GRACE = 3600000

--- {generation (as text), node, user} of the session that the store has of the device, whether its node lives or not; or nil.
function presence.stored(device)
  local found = call('HMGET', P .. 'sess:' .. device, 'generation', 'node', 'user')
  return found[1] and found or nil
end

--- Whether the node lives. It is looked up once in a script.
function presence.lives(node, now)
  local ends = presence.untils[node]
  if not ends then
    ends = tonumber(call('ZSCORE', P .. 'leases', node) or math.huge)
    presence.untils[node] = ends
  end
  return ends > now
end

--- Where the device is connected; empty: it is away.
function presence.node(device, now)
  local node = call('HGET', P .. 'sess:' .. device, 'node')
  return node and presence.lives(node, now) and node or ''
end

--- The device among the followers of a channel; with an empty one what all of that node begin with.
function presence.member(node, device)
  return #node .. ':' .. node .. ':' .. device
end

--- Node and device of such a member.
function presence.parts(member)
  local size, rest = member:match('^(%d+):(.*)$')
  return rest:sub(1, size), rest:sub(size + 2)
end

--- The next generation: above all that were given, and not below the clock: what a failover of Redis forgot is not given again.
function presence.next_generation(now)
  local generation = math.max(totals.number('generation') + 1, now)
  call('HSET', P .. 'totals', 'generation', generation)
  return generation
end

--- Takes the session out of the channels that it follows, at most so many; gives of how many.
function presence.leave(device, node, at_most)
  local channels = call('SPOP', P .. 'follows:' .. device, at_most)
  local member = presence.member(node, device)
  for _, channel in ipairs(channels) do
    call('ZREM', P .. 'present:' .. channel, member)
  end
  return #channels
end

--- Whether the session follows nothing.
function presence.is_idle(device)
  return call('EXISTS', P .. 'follows:' .. device) == 0
end

--- Takes away what is stored of a session that follows nothing any more.
function presence.remove(device, node, user)
  call('DEL', P .. 'sess:' .. device)
  call('ZREM', P .. 'nodeof:' .. node, device)
  if user ~= '' then
    call('ZREM', P .. 'online:' .. user, device)
  end
end

--- One step of taking a session away; whether it is gone.
function presence.step(device, node, user)
  presence.leave(device, node, presence.STEP)
  if not presence.is_idle(device) then
    return false
  end
  presence.remove(device, node, user)
  return true
end

--- One step of taking away the node's sessions up to the generation `last`; whether all are gone. The first step that leaves some
--- ends the lease: from then on none is present.
function presence.forget(node, last)
  local room = presence.STEP
  while room > 0 do
    local device = call('ZRANGEBYSCORE', P .. 'nodeof:' .. node, '-inf', last, 'LIMIT', 0, 1)[1]
    if not device then
      call('ZREM', P .. 'leases', node)
      return true
    end
    room = room - 5 - presence.leave(device, node, room)
    if presence.is_idle(device) then
      local session = presence.stored(device)
      presence.remove(device, node, session and session[3] or '')
    end
  end
  call('ZADD', P .. 'leases', 0, node)
  return false
end

--- One step of taking away what nodes have left that will not come back; whether there is more.
function presence.sweep(now)
  local gone = call('ZRANGEBYSCORE', P .. 'leases', '-inf', now - presence.GRACE, 'LIMIT', 0, 2)
  return #gone > 0 and (not presence.forget(gone[1], totals.number('generation')) or #gone > 1)
end
