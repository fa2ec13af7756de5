-- Gives a store that has no epoch yet the one that is offered; gives the one that it has.
-- args: an epoch
call('HSETNX', P .. 'totals', 'epoch', args[1])
return pack(call('HGET', P .. 'totals', 'epoch'))
