"""Listening sockets that a process finds open when it starts: from systemd's socket units, or from a supervisor.

The protocol is systemd's (sd_listen_fds(3)), three variables of the environment:

    LISTEN_FDS      how many descriptors there are, the first is 3
    LISTEN_FDNAMES  their names, with colons between; those that nobody named go by their order, see DEFAULT_ORDER
    LISTEN_PID      the process they are for. Another's leaves them alone. Whoever starts a process without knowing its id leaves
                    it out, or sets 0

Call `put_back` first, see there. They are read before twistd may fork to the background: descriptors outlive that, process ids
do not. The variables are removed, so that no child takes what is not its own.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Container, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from streampush.errors import ConfigError

STREAM: Final = "stream"
"""The name of the stream protocol's socket."""

REST: Final = "rest"
"""The name of the REST API's socket."""

DEFAULT_ORDER: Final = (STREAM, REST)
"""What sockets without names are, the first and the second."""

FIRST_DESCRIPTOR: Final = 3
"""SD_LISTEN_FDS_START: behind standard input, output and error."""

MAX_SOCKETS: Final = 64
"""Descriptors. A node has two and says so; a number beyond any sense is refused before anything is opened."""

MAX_ENVIRONMENT: Final = 4 * 1024 * 1024
"""Bytes of the environment that are looked through, Linux allows 6 MiB with the arguments by default."""

ENVIRONMENT: Final = "the environment"
"""Stands for a file in messages, as for settings."""

VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_VARIABLE_BYTES: Final = tuple(name.encode("ascii") for name in VARIABLES)
_NAMES_OF_NOBODY: Final = ("", "unknown")
_UNIT: Final = ".socket"
"""systemd names a socket after its unit where no FileDescriptorName= is given."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """Listening sockets by name, and where they come from, in words for the log. `notice`: what an operator should know.

    `bound`: names of those that were opened after the settings, by a process before this one. For all others settings of address
    and port do not count.
    """

    sockets: dict[str, socket.socket] = field(default_factory=dict)
    source: str = ""
    notice: str = ""
    bound: frozenset[str] = frozenset()

    def again(self) -> Inherited:
        """Copies of the sockets. (`socket.dup` would make them block, here and in every process that shares them.)"""
        sockets = {name: socket.socket(fileno=os.dup(sock.fileno())) for name, sock in self.sockets.items()}
        for sock in sockets.values():
            sock.setblocking(False)
        return replace(self, sockets=sockets)

    def close(self) -> None:
        """Closes this process's copies; for other processes the sockets listen on."""
        for sock in self.sockets.values():
            sock.close()


def take_inherited(
    environ: MutableMapping[str, str], pid: int, wanted: Sequence[str], *, first: int = FIRST_DESCRIPTOR
) -> Inherited:
    """The sockets that the environment tells of, ready to accept from: non-blocking, and closed in children.

    `wanted`: the names that are served here. Removes the variables from `environ`. Raises ConfigError for a socket of another name
    or kind, for two of a name, and for descriptors that are not there: a socket that nobody accepts from lets its clients hang.
    """
    given = {name: environ.pop(name, "") for name in VARIABLES}
    count = _count(given["LISTEN_FDS"])
    if count == 0:
        return Inherited()
    owner = given["LISTEN_PID"].strip()
    if owner not in ("", "0", str(pid)):
        return Inherited(notice=f"LISTEN_PID is {owner[:20]}, not {pid}, this process: the sockets of LISTEN_FDS are left alone")
    found = Inherited(source="the environment (LISTEN_FDS)")
    try:
        for position, name in enumerate(_names(given["LISTEN_FDNAMES"], count)):
            _check_name(name, first + position, wanted, found.sockets)
            found.sockets[name] = _adopt(first + position, name)
    except ConfigError:
        found.close()
        raise
    return found


def read_initial_environment() -> bytes:
    """What this process was started with, as Linux keeps it: NAME=value, each with a NUL behind it. Empty on other systems."""
    try:
        with open("/proc/self/environ", "rb") as file:
            return file.read(MAX_ENVIRONMENT)
    except OSError:
        return b""


def put_back(environ: MutableMapping[str, str], pid: int, initial: bytes) -> None:
    """Gives `environ` the variables for this process again that are in `initial` only.

    Importing Twisted's endpoints, which twistd does before it knows any service, takes them away: LISTEN_PID and LISTEN_FDS,
    if they are for this process. What it has read is lost where the sockets have no names (`twisted.python.systemd.ListenFDs`).
    """
    if "LISTEN_FDS" in environ:
        return
    entries = (entry.partition(b"=") for entry in initial.split(b"\0"))
    found = {name.decode("ascii"): os.fsdecode(value) for name, _, value in entries if name in _VARIABLE_BYTES}
    if found.get("LISTEN_PID") == str(pid):
        environ.update(found)


def check_listening(sock: socket.socket) -> str:
    """What is wrong with a socket that is to be accepted from; empty if nothing is."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return "is not a TCP socket"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "does not listen: with systemd, Accept=no"
    return ""


def _fault(key: str, problem: str) -> ConfigError:
    return ConfigError(ENVIRONMENT, key, problem)


def _count(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or not int(text[:4]) <= MAX_SOCKETS or len(text) > 4:
        raise _fault("LISTEN_FDS", f"{text[:20]!r}, allowed are 0 to {MAX_SOCKETS}")
    return int(text)


def _names(text: str, count: int) -> Sequence[str]:
    names = text.split(":") if text else [""] * count
    if len(names) != count:
        raise _fault("LISTEN_FDNAMES", f"{len(names)} names for {count} sockets")
    if not all(name in _NAMES_OF_NOBODY or name.endswith(_UNIT) for name in names):
        return [name[:40] for name in names]
    if count > len(DEFAULT_ORDER):
        raise _fault("LISTEN_FDS", f"{count} sockets without names, of which a node serves {len(DEFAULT_ORDER)}")
    return DEFAULT_ORDER[:count]


def _check_name(name: str, descriptor: int, wanted: Sequence[str], found: Container[str]) -> None:
    if name not in wanted:
        raise _fault("LISTEN_FDNAMES", f"{name!r} of descriptor {descriptor} is not served here, only {' and '.join(wanted)}")
    if name in found:
        raise _fault("LISTEN_FDNAMES", f"two sockets are named {name!r}, a node serves one: give each node its own")


def _adopt(descriptor: int, name: str) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        what = "is not open" if error.errno == errno.EBADF else "is not a socket"
        raise _fault("LISTEN_FDS", f"descriptor {descriptor}, {name}, {what}") from error
    wrong = check_listening(sock)
    if wrong:
        sock.detach()  # not ours to close
        raise _fault("LISTEN_FDS", f"descriptor {descriptor}, {name}, {wrong}")
    os.set_inheritable(descriptor, False)
    sock.setblocking(False)
    return sock
