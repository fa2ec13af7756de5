-- device: all fields of the record, names and values in turn; none if it is not known.
return pack(call('HGETALL', P .. 'dev:' .. args[1]))
