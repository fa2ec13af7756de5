--! needs presence
-- device, run, user, facts, now, age: the generation; 0 if another run has a connection of the device that was made later; 'more' if
-- the older session follows so much that this must be called again. The process that has the older session is told: that it is
-- replaced, or where nobody can say which of the two connections is the older one, to close it with the advice to come back.
local device, run, user, facts, now, age = args[1], args[2], args[3], args[4], args[5], args[6]
local older = presence.stored(device)
local made = presence.clock(now) - age
local is_late = age > presence.DOUBT -- one that was just made is the newest, whatever clocks say
if is_late and older and older[2] ~= run and presence.made_later(device, made) and presence.lives(older[2], now) then
  return pack(0)
end
local in_doubt = is_late and presence.made_later(device, made - 2 * presence.DOUBT)
if older and not presence.step(device, older[2], older[3]) then
  return pack('more')
end
local generation = presence.next_generation(now)
call('HSET', P .. 'sess:' .. device, 'generation', generation, 'node', run, 'user', user, 'facts', pack(facts), 'made', made)
call('ZADD', P .. 'nodeof:' .. run, generation, device)
if user ~= '' then
  call('ZADD', P .. 'online:' .. user, 0, device)
end
if older and older[2] ~= run then
  local order = in_doubt and {'close', device, 'connected elsewhere at the same time', 0} or {'replaced', device, '', generation}
  call('PUBLISH', P .. 'node:' .. older[2], pack(order))
end
return pack(generation)
