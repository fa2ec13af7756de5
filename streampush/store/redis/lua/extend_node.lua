-- node, until
call('HSET', P .. 'leases', args[1], args[2])
return pack(true)
