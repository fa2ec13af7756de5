-- now: {name, started at, facts, namesakes, drain, move id, connections to keep} of each that lives, a namesake as {started at,
-- facts}. The others are forgotten.
local now = args[1]
local namesakes = {}
local all = call('HGETALL', P .. 'namesakes')
for index = 1, #all, 2 do
  local run, one = unpack(all[index]), unpack(all[index + 1])
  if one[1] > now then
    namesakes[run[1]] = namesakes[run[1]] or {}
    table.insert(namesakes[run[1]], {run[2], one[2]})
  else
    call('HDEL', P .. 'namesakes', all[index])
  end
end
local living = {}
all = call('HGETALL', P .. 'nodes')
for index = 1, #all, 2 do
  local name, node = all[index], unpack(all[index + 1])
  if node[1] > now then
    living[#living + 1] = {name, node[2], node[3], namesakes[name] or {}, node[4], node[5], node[6]}
  else
    call('HDEL', P .. 'nodes', name)
  end
end
return pack(living)
