-- When the first scheduled publication is due; false if there is none.
local first = call('ZRANGE', P .. 'sched', 0, 0, 'WITHSCORES')
return pack(first[2] and tonumber(first[2]) or false)
