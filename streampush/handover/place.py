"""The Unix socket at which a process is asked for what it serves, and who is on the other side of it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from dataclasses import dataclass
from typing import Final

BACKLOG: Final = 8
"""Connections that wait: a successor, and commands."""

_CREDENTIALS: Final = struct.Struct("iII")
"""struct ucred of Linux: process, user, group."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other side of a Unix socket."""

    pid: int
    uid: int

    def is_trusted(self, own_uid: int) -> bool:
        """Whether it may take over, or be taken over: it is the same user, or may do everything anyway."""
        return self.uid in (own_uid, 0)


def peer_of(sock: socket.socket) -> Peer:
    """Who connected, or who listens where we connected: of the moment when it did (unix(7), SO_PEERCRED). Raises OSError."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return Peer(pid, uid)


class Place:
    """A path with a Unix socket of this process, for its own user only.

    Claiming it replaces whatever socket has the name, in one step: a socket that nobody listens at any more, or that of the process
    which is followed. Only a socket that is still this process's own is removed.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._own: tuple[int, int] | None = None

    def claim(self) -> socket.socket:
        """A non-blocking socket that listens at the path. Raises OSError; FileExistsError if something else has the name."""
        if os.path.lexists(self.path) and not _is_socket(self.path):
            raise FileExistsError(errno.EEXIST, "is there and is no socket", self.path)
        passing = f"{self.path}.{os.getpid()}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(passing)  # of a process that had our number
            sock.setblocking(False)
            sock.bind(passing)
            os.chmod(passing, 0o600)
            sock.listen(BACKLOG)
            own = _identity(passing)
            os.rename(passing, self.path)
        except OSError:
            sock.close()
            with contextlib.suppress(OSError):
                os.unlink(passing)
            raise
        self._own = own
        return sock

    @property
    def is_ours(self) -> bool:
        """Whether the path still leads to this process."""
        return self._own is not None and self._own == _identity(self.path)

    def leave(self) -> None:
        """Removes the path, unless it is another process's by now. Never raises."""
        if self.is_ours:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self._own = None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_socket(path: str) -> bool:
    return stat.S_ISSOCK(os.lstat(path).st_mode)
