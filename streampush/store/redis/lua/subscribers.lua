-- channel, after, limit: ids of devices.
return pack(call('ZRANGEBYLEX', P .. 'followers:' .. args[1], '(' .. args[2], '+', 'LIMIT', 0, args[3]))
