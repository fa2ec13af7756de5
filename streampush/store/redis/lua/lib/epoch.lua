-- Which life of the store this is. One epoch is that of all logs.
--   totals  hash  its field `epoch`: the present one; `replication`: the id that Redis gives to the history of its data
--   epochs  zset  those that the present one goes on from, in their order: after a failover, or a start of Redis, that kept what
--                 they had, or most of it
local epoch = {present = nil}

-- Former epochs that are remembered. A device that was away for longer than so many failovers begins anew.
epoch.FORMER = 64

--- The present epoch, looked up once in a script. Where there is none (Redis is new, or was emptied) the script ends here, Python
--- begins the store and runs it again: to be called before anything is written.
function epoch.now()
  epoch.present = epoch.present or call('HGET', P .. 'totals', 'epoch')
  if not epoch.present then
    error({err = 'NOEPOCH the store is not begun'})
  end
  return epoch.present
end

--- Whether offsets of this epoch are those of the present one, as far as the log goes.
function epoch.known(one)
  return one == epoch.now() or call('ZSCORE', P .. 'epochs', one) ~= false
end

--- The former ones.
function epoch.former()
  return call('ZRANGE', P .. 'epochs', 0, -1)
end

--- Ends the present epoch: `next` goes on from it.
function epoch.follow(next)
  local newest = call('ZRANGE', P .. 'epochs', -1, -1, 'WITHSCORES')
  call('ZADD', P .. 'epochs', (tonumber(newest[2]) or 0) + 1, epoch.now())
  call('ZREMRANGEBYRANK', P .. 'epochs', 0, -epoch.FORMER - 1)
  call('HSET', P .. 'totals', 'epoch', next)
  epoch.present = next
end
