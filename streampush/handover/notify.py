"""What systemd is told of a service of Type=notify (sd_notify(3)): a datagram to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

VARIABLE = "NOTIFY_SOCKET"


class ServiceNotices:
    """Tells systemd how the service stands. Does nothing where no one asked for it, and never raises."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get(VARIABLE, "")
        self._address = "\0" + path[1:] if path.startswith("@") else path if path.startswith("/") else ""

    def serving(self) -> None:
        """The start is over."""
        self._tell("READY=1", "STATUS=serving")

    def stopping(self) -> None:
        """The stop has begun."""
        self._tell("STOPPING=1", "STATUS=stopping")

    def followed_by(self, pid: int) -> None:
        """Another process is the service from now on; that this one ends means nothing any more."""
        self._tell(f"MAINPID={pid}", "READY=1", f"STATUS=serving, process {pid} has followed {os.getpid()}")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:  # systemd takes a service that says nothing for one that did not start, and says so itself
            return
