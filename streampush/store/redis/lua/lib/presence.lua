--! needs totals
-- Who is connected, on whatever node. A run is a process of a node, by the name NODE/ID (push.values.run_name); keys and fields say
-- node of it, as they did when a node was one.
--   sess:DEVICE      hash  its present session: generation, node (its run), user, facts (what only Python reads), made (when
--                          the connection was, by the clock of Redis, Unix milliseconds)
--   follows:DEVICE   set   the channels that this session follows
--   present:CHANNEL  zset  who follows it, as LENGTH:RUN:DEVICE, of one score: those of one run lie together, in order
--   online:USER      zset  the devices of the user's sessions, of one score
--   nodeof:RUN       zset  generation: device, of each session of the run
--   leases           zset  until when it lives: run; one that never said so lives
local presence = {untils = {}}

-- What one step takes away, in channels that a session is taken out of: some µs each on a busy machine, so one or two ms.
presence.STEP = 400

-- Milliseconds by which it is not sure which of two connections was made later: what each process said of its own was under way.
presence.DOUBT = 1000

-- Milliseconds after the end of its lease for which a run may come back to its sessions. What those that crashed have left
-- goes then, if no other run of the node has taken it away before.
presence.GRACE = 3600000

--- {generation (as text), run, user} of the session that the store has of the device, whether its run lives or not; or nil.
function presence.stored(device)
  local found = call('HMGET', P .. 'sess:' .. device, 'generation', 'node', 'user')
  return found[1] and found or nil
end

--- Whether the run lives. It is looked up once in a script.
function presence.lives(run, now)
  local ends = presence.untils[run]
  if not ends then
    ends = tonumber(call('ZSCORE', P .. 'leases', run) or math.huge)
    presence.untils[run] = ends
  end
  return ends > now
end

--- The run that the device is connected to; empty: it is away.
function presence.run(device, now)
  local run = call('HGET', P .. 'sess:' .. device, 'node')
  return run and presence.lives(run, now) and run or ''
end

--- The name of the node that the run is of.
function presence.node_of(run)
  return run:match('^(.*)/[^/]*$') or run
end

--- Whether the process of the run hears its orders. What it is sent says nothing: it is no echo of its own.
function presence.listens(run)
  return call('PUBLISH', P .. 'node:' .. run, pack({'echo', ''})) > 0
end

--- The device among the followers of a channel; with an empty one what all of that run begin with.
function presence.member(run, device)
  return #run .. ':' .. run .. ':' .. device
end

--- Run and device of such a member.
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

--- Unix milliseconds by the clock of Redis, which is one for all nodes. `now`: what is taken where the user of Redis may not ask.
function presence.clock(now)
  local time = redis.pcall('TIME')
  return time.err and now or time[1] * 1000 + math.floor(time[2] / 1000)
end

--- Whether the connection of the device's session was made later than this, beyond doubt.
function presence.made_later(device, made)
  return tonumber(call('HGET', P .. 'sess:' .. device, 'made') or 0) > made + presence.DOUBT
end

--- Takes the session out of the channels that it follows, at most so many; gives of how many.
function presence.leave(device, run, at_most)
  local channels = call('SPOP', P .. 'follows:' .. device, at_most)
  local member = presence.member(run, device)
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
function presence.remove(device, run, user)
  call('DEL', P .. 'sess:' .. device)
  call('ZREM', P .. 'nodeof:' .. run, device)
  if user ~= '' then
    call('ZREM', P .. 'online:' .. user, device)
  end
end

--- One step of taking a session away; whether it is gone.
function presence.step(device, run, user)
  presence.leave(device, run, presence.STEP)
  if not presence.is_idle(device) then
    return false
  end
  presence.remove(device, run, user)
  return true
end

--- One step of taking away the run's sessions up to the generation `last`; whether all are gone. The first step that leaves some
--- ends the lease: from then on none is present.
function presence.forget(run, last)
  local room = presence.STEP
  while room > 0 do
    local device = call('ZRANGEBYSCORE', P .. 'nodeof:' .. run, '-inf', last, 'LIMIT', 0, 1)[1]
    if not device then
      call('ZREM', P .. 'leases', run)
      return true
    end
    room = room - 5 - presence.leave(device, run, room)
    if presence.is_idle(device) then
      local session = presence.stored(device)
      presence.remove(device, run, session and session[3] or '')
    end
  end
  call('ZADD', P .. 'leases', 0, run)
  return false
end

--- One step of taking away what runs have left that will not come back; whether there is more.
function presence.sweep(now)
  local gone = call('ZRANGEBYSCORE', P .. 'leases', '-inf', now - presence.GRACE, 'LIMIT', 0, 2)
  return #gone > 0 and (not presence.forget(gone[1], totals.number('generation')) or #gone > 1)
end
