-- device: channels, and since when, in turn.
return pack(call('HGETALL', P .. 'sub:' .. args[1]))
