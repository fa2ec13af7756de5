--! needs reaches
-- channel, devices, now: rows of reaches.one.
return pack(reaches.of(args[2], args[1], args[3]))
