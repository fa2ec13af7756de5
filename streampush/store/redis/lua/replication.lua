--! needs epoch
-- Redis has this id for the history of its data now. Another one than before: it is a replica that was promoted, or it was started
-- anew, and may have lost what was written last, and have other publications at those offsets. Then a new epoch begins.
-- args: id, the epoch that would begin. Gives false, or the epoch that has ended.
local id, next = args[1], args[2]
local known = call('HGET', P .. 'totals', 'replication')
local former = known and known ~= id and epoch.now()
if former then
  epoch.follow(next)
else
  epoch.now()
end
call('HSET', P .. 'totals', 'replication', id)
return pack(former)
