--! needs outbox totals
-- token, body, works, nonce, max_works: the token that follows, or false if the lease was not good.
local token, body, works, nonce, max_works = args[1], args[2], args[3], args[4], args[5]
local own = outbox.held(token)
if not own then
  return pack(false)
end
local kind, key, attempts = own[1], own[2], own[3]
local too_much = outbox.too_much(1 + outbox.count_new(works), max_works)
if too_much then
  return refused(3007, too_much)
end
totals.add('bytes', #body - call('HSTRLEN', P .. 'boxes:' .. kind, key))
call('HSET', P .. 'boxes:' .. kind, key, body)
outbox.put_lease(kind, key, attempts, nonce)
outbox.add_all(works)
return pack(outbox.token(nonce, kind, key))
