-- run, until
call('ZADD', P .. 'leases', args[2], args[1])
return pack(true)
