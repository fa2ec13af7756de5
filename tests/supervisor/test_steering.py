"""Connections of an address go to one socket of a group: the kernel's own sockets, on loopback, which has many addresses. And what
that is for: TLS sessions are resumed over several workers."""

from __future__ import annotations

import socket
import ssl
import sys
import unittest
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.framing import encode_frame
from streampush.supervisor.steering import Group, steer_by_address
from tests.redis_server import NOT_HERE, PROGRAM, shared_server
from tests.supervisor.launching import TIMEOUT, SupervisorTestCase

WORKERS = 3
ADDRESSES = [f"127.0.{second}.{last}" for second in range(3) for last in range(1, 41)]

linux = pytest.mark.skipif(sys.platform != "linux", reason="SO_REUSEPORT of Linux, and loopback with many addresses")


def group(address: str) -> list[socket.socket]:
    """So many listening sockets for one port."""
    made: list[socket.socket] = []
    for _ in range(WORKERS):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if ":" in address:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((address, made[0].getsockname()[1] if made else 0))
        sock.listen(16)
        sock.setblocking(False)
        made.append(sock)
    return made


@pytest.fixture(params=["127.0.0.1", "::"])
def sockets(request: pytest.FixtureRequest) -> Iterator[list[socket.socket]]:
    made = group(request.param)
    yield made
    for sock in made:
        sock.close()


def accepted(sock: socket.socket) -> list[object]:
    """The addresses of those that wait; they are taken, and closed."""
    found: list[object] = []
    while True:
        try:
            taken, address = sock.accept()
        except BlockingIOError:
            return found
        taken.close()
        found.append(address)


def taker(sockets: list[socket.socket], source: str) -> int:
    """Which socket gets a connection from this address."""
    port = sockets[0].getsockname()[1]
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))):
        [number] = [number for number, sock in enumerate(sockets) if accepted(sock)]
        return number


@linux
def test_an_address_comes_back_to_the_same_worker_and_addresses_are_spread(sockets: list[socket.socket]) -> None:
    assert steer_by_address(sockets[0], WORKERS)
    first = {source: taker(sockets, source) for source in ADDRESSES}
    assert all(taker(sockets, source) == first[source] for source in ADDRESSES)
    share = Counter(first.values())
    assert all(share[number] > len(ADDRESSES) / WORKERS / 2 for number in range(WORKERS)), share


@linux
def test_an_address_of_ipv6_comes_back_to_the_same_worker() -> None:
    try:
        made = group("::1")
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    assert steer_by_address(made[0], WORKERS)
    connections = [socket.create_connection(made[0].getsockname()[:2], timeout=10) for _ in range(12)]
    assert sorted(len(accepted(sock)) for sock in made) == [0, 0, 12]
    for sock in (*made, *connections):
        sock.close()


@linux
def test_without_it_an_address_goes_to_any(sockets: list[socket.socket]) -> None:
    assert len({taker(sockets, "127.0.0.2") for _ in range(60)}) > 1


@linux
def test_connections_of_a_worker_that_is_parked_go_to_the_others(sockets: list[socket.socket]) -> None:
    assert steer_by_address(sockets[0], WORKERS)
    first = {source: taker(sockets, source) for source in ADDRESSES}
    sockets.pop().close()
    assert {taker(sockets, source) for source in ADDRESSES} == {0, 1}
    stayed = [source for source in ADDRESSES if first[source] < WORKERS - 1]
    assert all(taker(sockets, source) == first[source] for source in stayed)


def takers(sockets: list[socket.socket]) -> Counter[int]:
    """Which sockets get the connections of many addresses, numbered from 1 on."""
    return Counter(taker(sockets, source) + 1 for source in ADDRESSES)


@linux
def test_a_worker_that_is_avoided_gets_nothing_and_the_others_share_it(sockets: list[socket.socket]) -> None:
    group = Group(WORKERS, by_address=False, listening=(1, 2, 3))
    assert group.steer(sockets[0], {2})
    share = takers(sockets)
    assert set(share) == {1, 3}
    assert min(share.values()) > len(ADDRESSES) / 4
    assert group.steer(sockets[0], {1, 2})
    assert set(takers(sockets)) == {3}
    assert group.steer(sockets[0], ())
    assert set(takers(sockets)) == {1, 2, 3}


@linux
def test_where_all_are_to_be_avoided_none_is(sockets: list[socket.socket]) -> None:
    group = Group(WORKERS, by_address=False, listening=(1, 2, 3))
    assert group.steer(sockets[0], {1, 2, 3})
    assert set(takers(sockets)) == {1, 2, 3}


@linux
def test_whose_own_worker_is_not_avoided_stays_with_it(sockets: list[socket.socket]) -> None:
    group = Group(WORKERS, by_address=True, listening=(1, 2, 3))
    assert group.steer(sockets[0], ())
    first = {source: taker(sockets, source) for source in ADDRESSES}
    assert set(first.values()) == {0, 1, 2}
    assert group.steer(sockets[0], {2})
    assert set(takers(sockets)) == {1, 3}
    assert all(taker(sockets, source) == first[source] for source in ADDRESSES if first[source] != 1)
    assert group.steer(sockets[0], ())
    assert all(taker(sockets, source) == first[source] for source in ADDRESSES)


@linux
def test_the_last_one_takes_the_number_of_one_that_is_closed_as_in_the_kernel(sockets: list[socket.socket]) -> None:
    group = Group(WORKERS, by_address=False, listening=(1, 2, 3))
    port = sockets[0].getsockname()
    fresh = socket.socket(sockets[0].family)
    fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sockets[0].family == socket.AF_INET6:
        fresh.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    fresh.bind(port)
    fresh.setblocking(False)
    sockets[0].close()
    sockets[0] = fresh
    group.closed(1)
    assert group.order == (3, 2)
    assert group.steer(sockets[2], {2})
    assert set(takers(sockets[1:])) == {2}  # of those two: the third
    fresh.listen(16)
    group.listens(1)
    for avoided in (1, 2, 3):
        assert group.steer(sockets[2], {avoided})
        assert set(takers(sockets)) == {1, 2, 3} - {avoided}


@linux
def test_more_workers_than_can_be_configured_fit_a_program(sockets: list[socket.socket]) -> None:
    group = Group(64, by_address=True, listening=range(1, 65))
    assert group.steer(sockets[0], {7})


def test_where_the_system_has_no_such_thing_it_says_so() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert not steer_by_address(sock, WORKERS)
        assert not Group(WORKERS, by_address=False, listening=(1, 2)).steer(sock, ())
        assert not Group(WORKERS, by_address=False, listening=(1, 2)).steer(sock, {1})
        assert not Group(WORKERS, by_address=False).steer(sock, ())


@unittest.skipIf(PROGRAM is None, NOT_HERE)
class ResumingTests(SupervisorTestCase):
    """Three workers on one Redis, and a device that comes back."""

    def visit(self, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        """Connects, is welcomed, and goes: whether the session was resumed, and the next one."""
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock:
            tls = context.wrap_socket(sock, server_hostname="localhost", session=session)
            with tls:
                tls.sendall(encode_frame(codec.encode(m.Hello(), 1)))
                self.assertTrue(tls.recv(4096))  # the ticket comes before the welcome
                return bool(tls.session_reused), tls.session

    def test_device_resumes_its_session_each_time_it_comes_back(self) -> None:
        url, prefix = shared_server().url, uuid.uuid4().hex
        launched = self.serving(3, "store.backend=redis", f"store.url={url}", f"store.prefix={prefix}", "listen.steering=address")
        context = ssl.create_default_context(cafile=str(self.files.ca))
        credentials = self.files.device("phone-1", "alice")
        context.load_cert_chain(str(credentials.certificate), str(credentials.key))
        session, resumed = None, []
        for _ in range(9):
            was_resumed, session = self.visit(launched.stream_port, context, session)
            resumed.append(was_resumed)
        self.assertEqual(resumed, [False] + [True] * 8)
