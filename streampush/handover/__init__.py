"""Listening sockets that outlive a process: what another process opened is served here, what is served here another takes over."""
