-- Gives a store that has no epoch yet the one that is offered, and says how its keys are laid out; gives the epoch that it has.
-- args: an epoch, the number of the layout
call('HSETNX', P .. 'totals', 'layout', args[2])
call('HSETNX', P .. 'totals', 'epoch', args[1])
return pack(call('HGET', P .. 'totals', 'epoch'))
