-- Which life of the store this is. One epoch is that of all logs.
--   totals  hash  its field `epoch`: the present one
--   epochs  set   those that the present one goes on from, after a failover that kept what they had
local epoch = {present = nil}

--- The present epoch, looked up once in a script. Where there is none (Redis is new, or was emptied) the script ends here, Python
--- begins the store and runs it again: to be called before anything is written.
function epoch.now()
  epoch.present = epoch.present or call('HGET', P .. 'totals', 'epoch')
  if not epoch.present then
    error({err = 'NOEPOCH the store is not begun'})
  end
  return epoch.present
end

--- Whether offsets of this epoch are those of the present one.
function epoch.known(one)
  return one == epoch.now() or call('SISMEMBER', P .. 'epochs', one) == 1
end
