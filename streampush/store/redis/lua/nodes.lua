-- now: {name, started at, facts, drain, move id, connections to keep} of each that lives. The others are forgotten.
local living = {}
local all = call('HGETALL', P .. 'nodes')
for index = 1, #all, 2 do
  local name, node = all[index], unpack(all[index + 1])
  if node[1] > args[1] then
    living[#living + 1] = {name, node[2], node[3], node[4], node[5], node[6]}
  else
    call('HDEL', P .. 'nodes', name)
  end
end
return pack(living)
