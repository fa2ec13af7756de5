--! needs presence totals
-- run, last: 0 if it is done, else what is to be given as `last` in the next step. Takes the run's sessions away, those up to
-- the generation `last`, 0: all that there are now.
local run, last = args[1], args[2]
if last == 0 then
  last = totals.number('generation')
end
return pack(presence.forget(run, last) and 0 or last)
