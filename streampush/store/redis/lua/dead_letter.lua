--! needs letters
-- device, message id: see letters.read. Not packed again: the body may be large.
return letters.read(args[1], args[2])
