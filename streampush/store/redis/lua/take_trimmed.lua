-- See push.store_ports.LogStore.take_trimmed. args: how many. Those of the highest floors come first: where most is appended.
local found = call('ZPOPMAX', P .. 'trimmed', args[1])
local rows = {}
for number = 1, #found, 2 do
  rows[#rows + 1] = {found[number], tonumber(found[number + 1])}
end
return pack(rows)
