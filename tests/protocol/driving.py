"""Drives real sessions: to a state, with messages, and shows what they sent."""

from __future__ import annotations

from typing import TypeVar

from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.client_session import ClientSession
from streampush.protocol.codes import Code
from streampush.protocol.framing import FrameDecoder, encode_frame
from streampush.protocol.session import ServerSession, Session, SessionSettings
from streampush.protocol.state import State
from streampush.protocol.terms import Durability, Milestone

S = TypeVar("S", bound=Session)

SAMPLES: dict[type[m.Message], m.Message] = {
    m.Hello: m.Hello(),
    m.Welcome: m.Welcome(),
    m.Ping: m.Ping(),
    m.Pong: m.Pong(),
    m.State: m.State(),
    m.RegisterToken: m.RegisterToken(),
    m.Credit: m.Credit(1, 1),
    m.Ok: m.Ok(),
    m.Error: m.Error.of(Code.FORBIDDEN),
    m.GoAway: m.GoAway(0),
    m.Delivery: m.Delivery("c", 1, "m", b"x"),
    m.Ack: m.Ack("c", 1),
    m.Publish: m.Publish("c", b"x"),
    m.PublishOk: m.PublishOk("m", "c", 1, "e", Durability.MEMORY),
    m.Subscribe: m.Subscribe("c"),
    m.Subscribed: m.Subscribed("c"),
    m.Unsubscribe: m.Unsubscribe("c"),
    m.BacklogEnd: m.BacklogEnd("c", 1),
    m.Receipt: m.Receipt("m", "c", 1, "d", Milestone.STORED),
}
UNKNOWN = bytes.fromhex("7805f20103616263")
"""A payload with id 5 and a body of the future."""


def wire(*messages: m.Message, request_id: int = 0) -> bytes:
    """Frames of these messages; `Unknown` gives UNKNOWN."""
    payloads = (UNKNOWN if isinstance(message, m.Unknown) else codec.encode(message, request_id) for message in messages)
    return b"".join(encode_frame(payload) for payload in payloads)


def sent(session: Session) -> list[tuple[int, m.Message]]:
    """What the session wants to send, decoded; empties its queue."""
    decoder = FrameDecoder()
    decoded = decoder.feed(session.data_to_send())
    assert not decoder.partial
    return [codec.decode(payload) for payload in decoded if isinstance(payload, bytes)]


def server(state: State = State.ESTABLISHED, settings: SessionSettings | None = None, first_ping: float = 1.0) -> ServerSession:
    """A server's session in this state at time 0, with nothing left to send."""
    session = ServerSession(settings or SessionSettings(), 0.0, first_ping)
    if state is not State.AWAIT_TLS:
        session.tls_done(0.0)
    if state not in (State.AWAIT_TLS, State.AWAIT_HELLO):
        session.receive(wire(m.Hello()), 0.0)
    return _finish(session, state)


def client(
    state: State = State.ESTABLISHED,
    settings: SessionSettings | None = None,
    first_ping: float = 1.0,
    welcome: m.Welcome | None = None,
) -> ClientSession:
    """A client's session in this state at time 0, with nothing left to send."""
    session = ClientSession(settings or SessionSettings(), 0.0, first_ping)
    if state is not State.AWAIT_TLS:
        session.tls_done(0.0)
        session.hello(m.Hello())
    if state not in (State.AWAIT_TLS, State.AWAIT_HELLO):
        session.receive(wire(welcome or m.Welcome()), 0.0)
    return _finish(session, state)


def _finish(session: S, state: State) -> S:
    if state is State.DRAINING:
        session.drain(0.0, session.goaway(Code.DRAINING))
    if state is State.CLOSED:
        session.close(Code.OVERLOADED)
    session.data_to_send()
    assert session.state is state
    return session
