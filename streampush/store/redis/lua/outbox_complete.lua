--! needs outbox
-- token: whether the lease was good.
return pack(outbox.complete(args[1]))
