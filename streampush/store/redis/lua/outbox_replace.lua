--! needs outbox pushes
-- token, works, records, max_works: whether the lease was good.
local token, works, records, max_works = args[1], args[2], args[3], args[4]
local own = outbox.held(token)
if not own then
  return pack(false)
end
local too_much = outbox.too_much(outbox.count_new(works, outbox.name(own[1], own[2])), max_works)
if too_much then
  return refused(3007, too_much)
end
outbox.remove(own[1], own[2])
outbox.add_all(works)
pushes.record(records)
return pack(true)
