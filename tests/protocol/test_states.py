"""Every pair of state and input, on real sessions that were driven there: docs/protocol.md section 6."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.errors import LocalProtocolError
from streampush.protocol.session import Closed, Faulted, Received, Session
from streampush.protocol.state import CLIENT_TABLE, INPUT_OF, SERVER_TABLE, Input, State, Table
from tests.protocol.driving import SAMPLES, client, sent, server, wire

SIDES: list[tuple[Callable[[State], Session], Table]] = [(server, SERVER_TABLE), (client, CLIENT_TABLE)]
MESSAGES: list[m.Message] = [*SAMPLES.values(), m.Unknown()]
OPEN = [state for state in State if state is not State.CLOSED]

each_side = pytest.mark.parametrize(("make", "table"), SIDES, ids=["server", "client"])
each_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
each_open_state = pytest.mark.parametrize("state", OPEN, ids=lambda state: state.value)


@each_side
@each_open_state
@each_message
def test_a_message_moves_the_session_as_the_table_says(
    make: Callable[[State], Session], table: Table, state: State, message: m.Message
) -> None:
    session = make(state)
    kind = INPUT_OF[type(message)]
    target = table.get((state, kind))
    events = session.receive(wire(message, request_id=5), 1.0)
    answers = sent(session)
    if target is None:
        detail = f"{type(message).__name__} in state {state.value}"
        assert session.state is State.CLOSED
        assert events == [Closed(Code.UNEXPECTED_MESSAGE, Advice.UPGRADE, detail)]
        last_word = [(0, m.GoAway(Code.UNEXPECTED_MESSAGE, Advice.UPGRADE, detail))]
        assert answers == ([] if state is State.AWAIT_TLS else last_word)
        return
    assert session.state is target
    if kind is Input.HEARTBEAT:
        assert events == []
        assert answers == ([(5, m.Pong())] if isinstance(message, m.Ping) else [])
    elif kind is Input.UNKNOWN:
        detail = "a message that this version does not know"
        assert events == [Faulted(Code.UNEXPECTED_MESSAGE, detail)]
        assert answers == [(5, m.Error.of(Code.UNEXPECTED_MESSAGE, detail))]
    else:
        assert events[0] == Received(5, message)
        assert answers == []
        assert session.active


@each_side
@each_message
def test_a_closed_session_ignores_what_comes(make: Callable[[State], Session], table: Table, message: m.Message) -> None:
    session = make(State.CLOSED)
    assert session.receive(wire(message), 1.0) == []
    assert session.tick(1e9) == []
    assert session.close(Code.OVERLOADED) == []
    assert session.data_to_send() == b""
    assert session.deadline == float("inf")


@each_side
@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
def test_a_handshake_moves_the_session_as_the_table_says(make: Callable[[State], Session], table: Table, state: State) -> None:
    session = make(state)
    target = table.get((state, Input.TLS_DONE))
    if target is None:
        with pytest.raises(LocalProtocolError, match="handshake done on a closed session"):
            session.tls_done(1.0)
    else:
        session.tls_done(1.0)
        assert session.state is target


@each_side
@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
def test_a_drain_moves_the_session_as_the_table_says(make: Callable[[State], Session], table: Table, state: State) -> None:
    session = make(state)
    goaway = session.goaway(Code.DRAINING)
    target = table.get((state, Input.DRAIN))
    if target is None:
        with pytest.raises(LocalProtocolError, match=f"cannot drain in state {state.value}"):
            session.drain(1.0, goaway)
        assert session.state is state
    else:
        session.drain(1.0, goaway)
        assert session.state is target
        assert sent(session) == [(0, goaway)]


@each_side
@each_open_state
def test_every_open_state_can_be_closed(make: Callable[[State], Session], table: Table, state: State) -> None:
    session = make(state)
    (closed,) = session.close(Code.OVERLOADED)
    assert closed == Closed(Code.OVERLOADED, Advice.RECONNECT_ELSEWHERE, "overloaded")
    assert session.closed
    assert len(sent(session)) == (state is not State.AWAIT_TLS)


@each_side
@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
def test_nothing_is_sent_before_tls_or_after_the_end(make: Callable[[State], Session], table: Table, state: State) -> None:
    session = make(state)
    if state in (State.AWAIT_TLS, State.CLOSED):
        with pytest.raises(LocalProtocolError, match=f"cannot send Ok in state {state.value}"):
            session.send(m.Ok())
    else:
        session.send(m.Ok(), 9)
        assert sent(session) == [(9, m.Ok())]


@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
def test_a_welcome_is_said_behind_hello(state: State) -> None:
    session = server(state)
    if state in (State.ESTABLISHED, State.DRAINING):
        session.welcome(m.Welcome(session_id="s"), 3)
        assert sent(session) == [(3, m.Welcome(session_id="s"))]
    else:
        with pytest.raises(LocalProtocolError, match=f"cannot welcome in state {state.value}"):
            session.welcome(m.Welcome())


@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
def test_hello_is_said_between_handshake_and_welcome(state: State) -> None:
    session = client(state)
    if state is State.AWAIT_HELLO:
        session.hello(m.Hello(app="a"), 3)
        assert sent(session) == [(3, m.Hello(app="a"))]
    else:
        with pytest.raises(LocalProtocolError, match=f"cannot say hello in state {state.value}"):
            session.hello(m.Hello())
