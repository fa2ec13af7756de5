"""The states of a session and what may happen in each: docs/protocol.md section 6.

The tables are the protocol, and a test holds them against the page: a pair (state, input) that is not in the table is the
peer's fault (2010), or ours if the input was local. Anything can be closed, so CLOSE is not in the tables.
"""

from __future__ import annotations

from enum import Enum

from streampush.protocol import messages as m


class State(Enum):
    __hash__ = object.__hash__  # by identity, as it is compared; Enum's own hashes the name, in Python, for every frame

    AWAIT_TLS = "await_tls"
    AWAIT_HELLO = "await_hello"  # the client, seen from its own side, awaits Welcome
    ESTABLISHED = "established"
    DRAINING = "draining"
    CLOSED = "closed"


class Input(Enum):
    """What drives a session: local events, then messages of the peer by what they mean."""

    __hash__ = object.__hash__

    TLS_DONE = "tls_done"
    DRAIN = "drain"
    HELLO = "hello"
    WELCOME = "welcome"
    HEARTBEAT = "heartbeat"  # Ping, Pong
    REQUEST = "request"  # Publish, Subscribe, Unsubscribe, RegisterToken, State
    FLOW = "flow"  # Ack, Credit
    REPLY = "reply"  # Ok, PublishOk, Subscribed
    PUSH = "push"  # Delivery, BacklogEnd, Receipt
    ERROR = "error"
    GO_AWAY = "go_away"
    UNKNOWN = "unknown"


INPUT_OF: dict[type[m.Message], Input] = {
    m.Hello: Input.HELLO,
    m.Welcome: Input.WELCOME,
    m.Ping: Input.HEARTBEAT,
    m.Pong: Input.HEARTBEAT,
    m.Publish: Input.REQUEST,
    m.Subscribe: Input.REQUEST,
    m.Unsubscribe: Input.REQUEST,
    m.RegisterToken: Input.REQUEST,
    m.State: Input.REQUEST,
    m.Ack: Input.FLOW,
    m.Credit: Input.FLOW,
    m.Ok: Input.REPLY,
    m.PublishOk: Input.REPLY,
    m.Subscribed: Input.REPLY,
    m.Delivery: Input.PUSH,
    m.BacklogEnd: Input.PUSH,
    m.Receipt: Input.PUSH,
    m.Error: Input.ERROR,
    m.GoAway: Input.GO_AWAY,
    m.Unknown: Input.UNKNOWN,
}

Table = dict[tuple[State, Input], State]

_COMMON: Table = {
    (State.AWAIT_TLS, Input.TLS_DONE): State.AWAIT_HELLO,
    (State.ESTABLISHED, Input.TLS_DONE): State.ESTABLISHED,  # Twisted reports a handshake more than once
    (State.DRAINING, Input.TLS_DONE): State.DRAINING,
    (State.AWAIT_HELLO, Input.TLS_DONE): State.AWAIT_HELLO,
    (State.ESTABLISHED, Input.DRAIN): State.DRAINING,
    (State.DRAINING, Input.DRAIN): State.DRAINING,
}


def _while_open(*inputs: Input) -> Table:
    return {(state, kind): state for state in (State.ESTABLISHED, State.DRAINING) for kind in inputs}


SERVER_TABLE: Table = {
    **_COMMON,
    (State.AWAIT_HELLO, Input.HELLO): State.ESTABLISHED,
    (State.AWAIT_HELLO, Input.GO_AWAY): State.CLOSED,  # it changed its mind
    (State.ESTABLISHED, Input.GO_AWAY): State.CLOSED,
    (State.DRAINING, Input.GO_AWAY): State.CLOSED,
    **_while_open(Input.HEARTBEAT, Input.REQUEST, Input.FLOW, Input.ERROR, Input.UNKNOWN),
}

CLIENT_TABLE: Table = {
    **_COMMON,
    (State.AWAIT_HELLO, Input.WELCOME): State.ESTABLISHED,
    (State.AWAIT_HELLO, Input.HEARTBEAT): State.AWAIT_HELLO,  # the server may need time for Welcome, and watches us already
    (State.AWAIT_HELLO, Input.ERROR): State.AWAIT_HELLO,  # our greeting was damaged
    (State.AWAIT_HELLO, Input.GO_AWAY): State.DRAINING,  # refused before Welcome
    (State.ESTABLISHED, Input.GO_AWAY): State.DRAINING,
    (State.DRAINING, Input.GO_AWAY): State.DRAINING,
    (State.DRAINING, Input.WELCOME): State.DRAINING,  # it crossed the drain
    **_while_open(Input.HEARTBEAT, Input.REPLY, Input.PUSH, Input.ERROR, Input.UNKNOWN),
}
