--! needs presence
-- device, run, user, facts, now: the generation; 'more' if the older session follows so much that this must be called again.
-- The process that has the older session is told.
local device, run, user, facts, now = args[1], args[2], args[3], args[4], args[5]
local older = presence.stored(device)
if older and not presence.step(device, older[2], older[3]) then
  return pack('more')
end
local generation = presence.next_generation(now)
call('HSET', P .. 'sess:' .. device, 'generation', generation, 'node', run, 'user', user, 'facts', pack(facts))
call('ZADD', P .. 'nodeof:' .. run, generation, device)
if user ~= '' then
  call('ZADD', P .. 'online:' .. user, 0, device)
end
if older and older[2] ~= run then
  call('PUBLISH', P .. 'node:' .. older[2], pack({'replaced', device, '', generation}))
end
return pack(generation)
