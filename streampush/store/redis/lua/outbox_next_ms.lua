-- kind: when the next work is due or its lease ends; false if there is none.
local first = call('ZRANGE', P .. 'box:' .. args[1], 0, 0, 'WITHSCORES')
return pack(first[2] and tonumber(first[2]) or false)
