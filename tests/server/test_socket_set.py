"""SocketSet with real sockets, and a reactor that is turned by hand."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streampush.server.socket_set import SocketSet


class Oops(Exception):
    """Raised on purpose."""


class HandReactor:
    """Knows what it was told to watch."""

    def __init__(self) -> None:
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    addWriter = addReader
    removeWriter = removeReader

    def turn(self) -> None:
        for reader in list(self.readers):
            reader.doRead()


class End:
    """A socket with what happened to it; `read` and `write` say what the reactor is told."""

    def __init__(self, sockets: SocketSet) -> None:
        self.sockets = sockets
        self.sock, self.peer = socket.socketpair()
        self.sock.setblocking(False)
        self.seen: list[str] = []
        self.reasons: list[BaseException] = []
        self.read: Callable[[], BaseException | None] = lambda: None
        self.write: Callable[[], BaseException | None] = lambda: None

    def fileno(self) -> int:
        return self.sock.fileno()

    def logPrefix(self) -> str:
        return "end"

    def doRead(self) -> BaseException | None:
        self.seen.append("read")
        self.sock.recv(100)
        return self.read()

    def doWrite(self) -> BaseException | None:
        self.seen.append("write")
        return self.write()

    def connectionLost(self, reason: Failure) -> None:
        self.reasons.append(reason.value)

    def close(self) -> None:
        self.sockets.removeReader(self)  # type: ignore[arg-type]  # as far as it matters, it is one
        self.sockets.removeWriter(self)  # type: ignore[arg-type]
        self.sock.close()
        self.peer.close()


class SocketSetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = HandReactor()
        self.sockets: Any = SocketSet(self.reactor)

    def end(self) -> End:
        end = End(self.sockets)
        self.addCleanup(end.close)
        return end

    def reading(self, count: int) -> list[End]:
        """Ends that are read, each with something to read."""
        ends = [self.end() for _ in range(count)]
        for end in ends:
            self.sockets.addReader(end)
            end.peer.send(b"x")
        return ends

    def test_the_reactor_watches_it_while_it_watches_something(self) -> None:
        one, other = self.end(), self.end()
        self.assertEqual((self.reactor.readers, self.sockets.fileno()), ([], -1))
        self.sockets.addReader(one)
        self.sockets.addWriter(other)
        self.assertEqual(self.reactor.readers, [self.sockets])
        self.sockets.removeReader(one)
        self.assertGreaterEqual(self.sockets.fileno(), 0)
        self.sockets.removeWriter(other)
        self.assertEqual((self.reactor.readers, self.sockets.fileno()), ([], -1))

    def test_what_is_ready_is_told_as_often_as_it_is_ready(self) -> None:
        end = self.end()
        self.sockets.addReader(end)
        self.reactor.turn()
        self.assertEqual(end.seen, [])
        end.peer.send(b"x" * 150)
        self.reactor.turn()
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(end.seen, ["read", "read"])

    def test_reading_and_writing_are_asked_for_apart(self) -> None:
        (end,) = self.reading(1)
        self.sockets.addWriter(end)
        self.reactor.turn()
        self.assertEqual(end.seen, ["read", "write"])
        self.sockets.removeReader(end)
        end.peer.send(b"x")
        self.reactor.turn()
        self.assertEqual(end.seen, ["read", "write", "write"])
        self.sockets.addReader(end)
        self.sockets.removeWriter(end)
        self.reactor.turn()
        self.assertEqual(end.seen, ["read", "write", "write", "read"])

    def test_asking_twice_and_taking_back_twice_is_harmless(self) -> None:
        (end,) = self.reading(1)
        self.sockets.addReader(end)
        self.reactor.turn()
        self.assertEqual(end.seen, ["read"])
        for _ in range(2):
            self.sockets.removeReader(end)
            self.sockets.removeWriter(end)
        self.assertEqual(self.reactor.readers, [])

    def test_what_a_socket_returns_ends_it_alone(self) -> None:
        ends = self.reading(3)
        ends[1].read = lambda: CONNECTION_DONE
        ends[1].write = lambda: self.fail("it was ended")
        self.sockets.addWriter(ends[1])
        self.reactor.turn()
        self.assertEqual([end.seen for end in ends], [["read"]] * 3)
        self.assertEqual([end.reasons for end in ends], [[], [CONNECTION_DONE], []])
        self.reactor.turn()
        self.assertEqual(ends[1].seen, ["read"])

    def test_what_a_socket_raises_ends_it_alone_and_is_logged(self) -> None:
        ends = self.reading(3)
        error = Oops()

        def fail() -> None:
            raise error

        ends[0].read = fail
        self.reactor.turn()
        self.assertEqual([end.reasons for end in ends], [[error], [], []])
        self.assertEqual([end.seen for end in ends], [["read"]] * 3)
        self.assertEqual(len(self.flushLoggedErrors(Oops)), 1)

    def test_a_socket_that_another_one_took_out_in_the_same_turn_is_not_served(self) -> None:
        ends = self.reading(2)
        ends[0].read = lambda: ends[1].close()  # type: ignore[func-returns-value]
        ends[1].read = lambda: ends[0].close()  # type: ignore[func-returns-value]
        self.reactor.turn()
        self.assertEqual(sorted(len(end.seen) for end in ends), [0, 1])

    def test_the_last_one_may_take_itself_out_while_it_is_served(self) -> None:
        (end,) = self.reading(1)
        self.sockets.addWriter(end)
        end.read = end.close  # type: ignore[assignment]
        self.reactor.turn()
        self.assertEqual((self.reactor.readers, end.seen, end.reasons), ([], ["read"], []))
        (other,) = self.reading(1)
        self.reactor.turn()
        self.assertEqual(other.seen, ["read"])

    def test_a_peer_that_hangs_up_is_noticed_by_who_only_writes(self) -> None:
        end = self.end()
        self.sockets.addWriter(end)
        end.peer.close()
        self.reactor.turn()
        self.assertEqual((end.seen, [type(reason) for reason in end.reasons]), ([], [ConnectionLost]))

    def test_a_peer_that_hangs_up_is_read_to_its_end(self) -> None:
        (end,) = self.reading(1)
        end.peer.close()
        self.reactor.turn()
        self.assertEqual((end.seen, end.reasons), (["read"], []))

    def test_a_socket_that_takes_the_number_of_one_closed_unsaid_is_watched(self) -> None:
        (gone,) = self.reading(1)
        number = gone.fileno()
        gone.sock.close()
        end = self.end()
        self.assertEqual(end.fileno(), number)  # the kernel gives the lowest that is free
        self.sockets.addReader(end)
        end.peer.send(b"x")
        self.reactor.turn()
        self.assertEqual((gone.seen, end.seen), ([], ["read"]))

    def test_a_reactor_that_stops_ends_all_of_them_whatever_one_does(self) -> None:
        ends = self.reading(3)

        def fail(reason: Failure) -> None:
            raise Oops

        ends[1].connectionLost = fail  # type: ignore[method-assign]
        self.sockets.connectionLost(Failure(CONNECTION_LOST))  # type: ignore[no-untyped-call]
        self.assertEqual([ends[at].reasons for at in (0, 2)], [[CONNECTION_LOST]] * 2)
        self.assertEqual((self.reactor.readers, self.sockets.fileno()), ([], -1))
        self.assertEqual(len(self.flushLoggedErrors(Oops)), 1)
