-- device, message id: the letter as it lies in Redis, in a list that is empty if there is none.
return {call('HGET', P .. 'letter:' .. args[1], args[2]) or nil}
