"""Apple's push service: an HTTP/2 client of our own on Twisted, and the delivery of pushes on top of it."""
