-- What the whole store holds, and what it counts: one hash of whole numbers.
local totals = {}

--- A number; 0 if it was never counted.
function totals.number(name)
  return tonumber(call('HGET', P .. 'totals', name) or 0)
end

--- Counts so many more, or less; gives what there is now. `+ 0` because Lua has a -0, which Redis takes for no number.
function totals.add(name, more)
  return call('HINCRBY', P .. 'totals', name, more + 0)
end
