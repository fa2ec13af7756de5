"""The side of a process that starts and follows one that serves. Blocks: it runs before the reactor does."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
from dataclasses import dataclass, field
from typing import Final

from streampush.handover.inherited import check_listening
from streampush.handover.place import Peer, peer_of
from streampush.handover.wire import (
    MAX_SOCKETS,
    STDERR,
    HandoverFault,
    Message,
    Offered,
    Reader,
    encode,
    parse_offer,
)

ANSWER_TIMEOUT: Final = 10.0
"""Seconds for an answer that needs no work: a process that gives none is stopped, or hangs."""

SPARE: Final = 5.0
"""Seconds beyond what the incumbent announced for letting go."""

DYING: Final = 10.0
"""Seconds for which a process that was killed may take to end; one with much memory takes a moment."""

_CHUNK: Final = 4096


class HandoverRefused(Exception):
    """There is a process that serves, and it is not followed. `str()` says why, in one line."""


@dataclass(frozen=True, slots=True)
class Received:
    """What was handed over: listening sockets by name, and names of those for which settings do not count."""

    sockets: dict[str, socket.socket] = field(default_factory=dict)
    foreign: frozenset[str] = frozenset()

    def close(self) -> None:
        """Closes this process's copies."""
        for sock in self.sockets.values():
            sock.close()


class Succession:
    """A handover that is under way, from the offer on. `received` is the successor's own; close it if it is not used."""

    def __init__(self, sock: socket.socket, peer: Peer, received: Received, wait: float, reader: Reader) -> None:
        self._sock = sock
        self._reader = reader
        self._wait = wait
        self._process = _open_process(peer.pid)
        self.peer = peer
        self.received = received

    def wait_until_free(self) -> bool:
        """Says that this process can start, and waits until the other one has let go of what only one may use, for as long as it
        announced. False: it died meanwhile, and has let go so.

        Raises HandoverRefused.
        """
        try:
            self._sock.sendall(encode("held"))
            message = _receive(self._sock, self._reader, self._wait + SPARE, [])
        except TimeoutError:
            raise HandoverRefused(f"process {self.peer.pid} has not let go within {self._wait + SPARE:g} s") from None
        except OSError:
            message = None
        except HandoverFault as fault:
            raise HandoverRefused(f"process {self.peer.pid}: {fault}") from None
        if message is None:
            self._wait_for_its_end()
            return False
        if message.kind != "free":
            raise HandoverRefused(f"process {self.peer.pid} hands over no more: {message.text('reason') or message.kind}")
        return True

    def tell_taken(self) -> None:
        """Says that this process serves: the other one ends. Never raises."""
        self._tell("taken")

    def tell_failed(self, reason: str) -> None:
        """Says that this process will not serve: the other one goes on. Never raises."""
        self._tell("failed", reason=reason)

    def _wait_for_its_end(self) -> None:
        """The kernel closes the files of a process that dies one by one: its socket may be gone, and a lock still be held."""
        if self._process is not None:
            poll = select.poll()
            poll.register(self._process, select.POLLIN)
            poll.poll(DYING * 1000)

    def close(self) -> None:
        """Leaves without a word, as a process that dies does."""
        self._sock.close()
        if self._process is not None:
            os.close(self._process)
            self._process = None

    def _tell(self, kind: str, **fields: str) -> None:
        with contextlib.suppress(OSError):
            self._sock.sendall(encode(kind, **fields))
        self.close()


def ask(path: str) -> Succession | None:
    """Asks the process that serves at the path for its listening sockets. None: there is none, or it died over it.

    Descriptors come closed in children, sockets non-blocking. Raises HandoverRefused.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    descriptors: list[int] = []
    succession = None
    try:
        sock.settimeout(ANSWER_TIMEOUT)
        if not _connect(sock, path):
            return None
        peer = peer_of(sock)
        wrong = why_not_followed(peer, os.geteuid(), path)
        if wrong:
            raise HandoverRefused(wrong)
        succession = _ask(sock, peer, descriptors)
    except HandoverFault as fault:
        raise HandoverRefused(f"the process at {path} cannot be followed: {fault}") from None
    except TimeoutError:
        raise HandoverRefused(f"the process at {path} does not answer within {ANSWER_TIMEOUT:g} s") from None
    except OSError as error:
        raise HandoverRefused(f"{path} cannot be used: {error.strerror}") from None
    finally:
        if succession is None:
            sock.close()
        for descriptor in descriptors:
            os.close(descriptor)
    return succession


def why_not_followed(peer: Peer, own_uid: int, path: str) -> str:
    """Why the process that listens at the path is not to be trusted; empty if it is.

    The superuser follows a process of another user's, which has given up its rights; but not where anybody may have put a socket.
    """
    if peer.is_trusted(own_uid):
        return ""
    if own_uid != 0:
        return f"{path} is a socket of user {peer.uid}'s, this process runs as {own_uid}"
    folder = os.path.dirname(os.path.abspath(path))
    if os.stat(folder).st_mode & stat.S_IWOTH:
        return f"{path} is a socket of user {peer.uid}'s, and anybody can make one in {folder}: choose a folder of its own"
    return ""


def _open_process(pid: int) -> int | None:
    """A descriptor that can be read from when the process has ended, and all that it had is closed (pidfd_open(2))."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):  # it is gone already, or this system has none
        return None


def _connect(sock: socket.socket, path: str) -> bool:
    try:
        sock.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):  # nobody; or a file that a killed process left
        return False
    return True


def _ask(sock: socket.socket, peer: Peer, descriptors: list[int]) -> Succession | None:
    reader = Reader()
    try:
        sock.sendall(encode("ask"))
        message = _receive(sock, reader, ANSWER_TIMEOUT, descriptors)
    except (BrokenPipeError, ConnectionResetError):
        message = None
    if message is None:  # it died
        return None
    if message.kind != "offer":
        raise HandoverRefused(f"process {peer.pid} hands over nothing: {message.text('reason') or message.kind}")
    offered, wait = parse_offer(message)
    if len(offered) != len(descriptors):
        raise HandoverFault(f"{len(offered)} sockets were announced, {len(descriptors)} came")
    return Succession(sock, peer, _adopt(offered, descriptors), wait, reader)


def _receive(sock: socket.socket, reader: Reader, timeout: float, descriptors: list[int]) -> Message | None:
    """The next message; None at the end of the connection. The time is for each piece of it: no piece is longer than a message."""
    sock.settimeout(timeout)
    while True:
        data, received, flags, _ = socket.recv_fds(sock, _CHUNK, MAX_SOCKETS, socket.MSG_CMSG_CLOEXEC)
        descriptors += received
        if flags & socket.MSG_CTRUNC or len(descriptors) > MAX_SOCKETS:
            raise HandoverFault("more descriptors than this process can take")
        if not data:
            return None
        messages = reader.feed(data)
        if len(messages) > 1:
            raise HandoverFault("more words than one at a time")
        if messages:
            return messages[0]


def _adopt(offered: list[Offered], descriptors: list[int]) -> Received:
    """Takes descriptors out of the list as it makes sockets of them, so that none is closed twice."""
    received = Received(foreign=frozenset(each.name for each in offered if each.foreign))
    try:
        for each in offered:
            descriptor = descriptors.pop(0)
            if each.name == STDERR:
                _take_standard_error(descriptor)
                continue
            sock = received.sockets[each.name] = socket.socket(fileno=descriptor)
            wrong = check_listening(sock)
            if wrong:
                raise HandoverFault(f"the socket {each.name} {wrong}")
            sock.setblocking(False)
    except (OSError, HandoverFault):
        received.close()
        raise
    return received


def _take_standard_error(descriptor: int) -> None:
    os.dup2(descriptor, 2)
    os.close(descriptor)
