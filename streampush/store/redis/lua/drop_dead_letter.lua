--! needs letters
-- device, message id: whether there was one.
return pack(letters.drop(args[1], args[2]))
