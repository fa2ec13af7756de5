"""The environment's word on sockets, with real descriptors."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.errors import ConfigError
from streampush.handover.inherited import MAX_SOCKETS, Inherited, put_back, read_initial_environment, take_inherited

FIRST = 200
"""The first descriptor here: 3 is somebody else's in a process of tests."""

NODE = ("stream", "rest")

Give = Callable[..., dict[str, str]]


@pytest.fixture
def give() -> Iterator[Give]:
    """Puts sockets where they are looked for, and tells of them in the way of systemd."""
    with ExitStack() as stack:

        def place(*sockets: socket.socket, names: str | None = "") -> dict[str, str]:
            for position, sock in enumerate(sockets):
                os.dup2(sock.fileno(), FIRST + position)
                stack.callback(_close_if_open, FIRST + position)
                stack.enter_context(sock)
            environ = {"HOME": "/", "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets))}
            return environ if names is None else {**environ, "LISTEN_FDNAMES": names}

        yield place


def _close_if_open(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:  # whoever adopted it has closed it
        return


def listening(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    return socket.create_server(("127.0.0.1" if family == socket.AF_INET else "::1", 0), family=family)


def take(environ: dict[str, str], wanted: tuple[str, ...] = NODE) -> Inherited:
    return take_inherited(environ, os.getpid(), wanted, first=FIRST)


def fault(environ: dict[str, str], wanted: tuple[str, ...] = NODE) -> str:
    with pytest.raises(ConfigError) as caught:
        take(environ, wanted)
    assert not any(name.startswith("LISTEN") for name in environ)
    return str(caught.value)


def ports(inherited: Inherited) -> dict[str, int]:
    return {name: sock.getsockname()[1] for name, sock in inherited.sockets.items()}


def test_sockets_go_by_their_names(give: Give) -> None:
    stream, rest = listening(), listening()
    with closing(take(give(rest, stream, names="rest:stream"))) as inherited:
        assert ports(inherited) == {"stream": stream.getsockname()[1], "rest": rest.getsockname()[1]}
        assert "LISTEN_FDS" in inherited.source


@pytest.mark.parametrize("names", [None, "", "unknown:unknown", "streampush.socket:streampush.socket"])
def test_sockets_that_nobody_named_go_by_their_order(give: Give, names: str | None) -> None:
    stream, rest = listening(), listening()
    with closing(take(give(stream, rest, names=names))) as inherited:
        assert ports(inherited) == {"stream": stream.getsockname()[1], "rest": rest.getsockname()[1]}


def test_one_socket_without_a_name_is_the_streams(give: Give) -> None:
    with closing(take(give(listening()))) as inherited:
        assert list(inherited.sockets) == ["stream"]


def test_a_socket_is_adopted_non_blocking_and_closed_in_children(give: Give) -> None:
    with closing(take(give(listening()))) as inherited:
        sock = inherited.sockets["stream"]
        assert not sock.getblocking()
        assert not sock.get_inheritable()


def test_no_child_sees_the_variables(give: Give) -> None:
    environ = give(listening())
    take(environ).close()
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("environ", [{}, {"LISTEN_FDS": "0"}, {"LISTEN_FDS": "", "LISTEN_FDNAMES": "stream"}])
def test_without_sockets_nothing_is_adopted(environ: dict[str, str]) -> None:
    assert take(environ) == Inherited()
    assert environ == {}


def test_sockets_for_another_process_are_left_alone_and_said(give: Give) -> None:
    environ = {**give(listening()), "LISTEN_PID": "1"}
    inherited = take(environ)
    assert inherited.sockets == {}
    assert f"LISTEN_PID is 1, not {os.getpid()}" in inherited.notice
    os.fstat(FIRST)  # open
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("owner", [{}, {"LISTEN_PID": "0"}])
def test_whoever_started_the_process_need_not_know_its_id(give: Give, owner: dict[str, str]) -> None:
    environ = give(listening())
    del environ["LISTEN_PID"]
    with closing(take({**environ, **owner})) as inherited:
        assert list(inherited.sockets) == ["stream"]


def test_socket_of_an_unknown_name_is_refused(give: Give) -> None:
    said = fault(give(listening(), listening(), names="stream:admin"))
    assert said == f"the environment: LISTEN_FDNAMES: 'admin' of descriptor {FIRST + 1} is not served here, only stream and rest"


def test_socket_of_rest_is_refused_where_rest_is_off(give: Give) -> None:
    assert "'rest' of descriptor" in fault(give(listening(), listening()), ("stream",))


def test_two_sockets_of_one_name_are_refused(give: Give) -> None:
    assert "two sockets are named 'stream'" in fault(give(listening(), listening(), names="stream:stream"))


def test_more_sockets_than_a_node_serves_are_refused(give: Give) -> None:
    assert "3 sockets without names, of which a node serves 2" in fault(give(*(listening() for _ in range(3))))


def test_other_number_of_names_than_of_sockets_is_refused(give: Give) -> None:
    assert "1 names for 2 sockets" in fault(give(listening(), listening(), names="stream"))


@pytest.mark.parametrize("count", ["-1", "x", "1.0", "٣", str(MAX_SOCKETS + 1), "9" * 5000])
def test_senseless_number_of_sockets_is_refused(count: str) -> None:
    said = fault({"LISTEN_FDS": count})
    assert said.startswith("the environment: LISTEN_FDS: ")
    assert len(said) < 120


def test_descriptor_that_is_not_open_is_refused() -> None:
    assert f"descriptor {FIRST}, stream, is not open" in fault({"LISTEN_FDS": "1"})


def test_descriptor_that_is_no_socket_is_refused() -> None:
    reading, writing = os.pipe()
    os.dup2(reading, FIRST)
    try:
        assert f"descriptor {FIRST}, stream, is not a socket" in fault({"LISTEN_FDS": "1"})
    finally:
        for descriptor in (reading, writing, FIRST):
            os.close(descriptor)


def test_socket_that_is_not_tcp_is_refused(give: Give) -> None:
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    assert "is not a TCP socket" in fault(give(datagrams))


def test_unix_socket_is_refused(give: Give) -> None:
    assert "is not a TCP socket" in fault(give(socket.socket(socket.AF_UNIX)))


def test_socket_that_does_not_listen_is_refused(give: Give) -> None:
    assert "does not listen" in fault(give(socket.socket(socket.AF_INET)))


TOLD = b"HOME=/\0LISTEN_PID=%d\0LISTEN_FDS=2\0LISTEN_FDNAMES=a:b\0" % os.getpid()


def test_variables_that_were_taken_out_of_the_environment_are_found_again() -> None:
    environ = {"HOME": "/root"}
    put_back(environ, os.getpid(), TOLD)
    assert environ == {"HOME": "/root", "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}


def test_variables_for_another_process_are_not_put_back() -> None:
    environ: dict[str, str] = {}
    put_back(environ, os.getpid() + 1, TOLD)
    assert environ == {}


def test_variables_that_are_there_stay_as_they_are() -> None:
    environ = {"LISTEN_FDS": "1"}
    put_back(environ, os.getpid(), TOLD)
    assert environ == {"LISTEN_FDS": "1"}


def test_the_environment_of_the_start_is_read() -> None:
    assert b"PATH=" in read_initial_environment()


@given(count=st.text(max_size=6), names=st.text(max_size=30), pid=st.text(max_size=6))
def test_whatever_the_environment_says_is_understood_or_refused(count: str, names: str, pid: str) -> None:
    environ = {"LISTEN_FDS": count, "LISTEN_FDNAMES": names, "LISTEN_PID": pid}
    try:
        inherited = take_inherited(environ, os.getpid(), NODE, first=60_000)
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert inherited.sockets == {}
    assert environ == {}
