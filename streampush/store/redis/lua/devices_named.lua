-- prefix, limit: ids that begin so. No id has the byte 255, which behind the prefix is behind all of them.
local prefix, limit = args[1], args[2]
return pack(call('ZRANGEBYLEX', P .. 'devices', '[' .. prefix, '(' .. prefix .. '\255', 'LIMIT', 0, limit))
