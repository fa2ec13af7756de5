--! needs pushes
-- records: see pushes.record.
pushes.record(args[1])
return pack(true)
