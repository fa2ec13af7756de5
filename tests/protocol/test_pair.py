"""A client's and a server's session wired together, over a network that delays and cuts as Hypothesis likes, on fake time.

Invariant: what one side sends the other receives, once and in order, whatever the network does to the chunks; and a
connection whose delays stay below the reply timeout is never cut, never faulted, and needs no ping of the client but its first.
"""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.client_session import ClientSession
from streampush.protocol.codes import Code
from streampush.protocol.framing import encode_frame
from streampush.protocol.session import Closed, Event, Faulted, Received, ServerSession, Session, SessionSettings
from streampush.protocol.state import CLIENT_TABLE, INPUT_OF, SERVER_TABLE, State
from tests.protocol.driving import SAMPLES
from tests.protocol.strategies import chunkings, cut, messages, streams

TO_SERVER = [message for kind, message in SAMPLES.items() if (State.ESTABLISHED, INPUT_OF[kind]) in SERVER_TABLE]
TO_CLIENT = [message for kind, message in SAMPLES.items() if (State.ESTABLISHED, INPUT_OF[kind]) in CLIENT_TABLE]
ENDS = (m.GoAway, m.Ping, m.Pong)


class Network:
    """One direction: bytes arrive in order, each write cut in chunks, each chunk after a delay."""

    def __init__(self, delays: list[float], cuts: list[int]) -> None:
        self._delays = deque(delays or [0.0])
        self._cuts = cuts
        self._last = 0.0
        self.flying: deque[tuple[float, bytes]] = deque()

    def carry(self, data: bytes, now: float) -> None:
        for chunk in cut(data, self._cuts) if data else ():
            self._delays.rotate(-1)
            self._last = max(self._last, now + self._delays[0])
            self.flying.append((self._last, chunk))


class World:
    """Both sessions, both directions, one clock."""

    def __init__(self, settings: SessionSettings, first_ping: float, there: Network, back: Network) -> None:
        self.now = 0.0
        self.client = ClientSession(settings, 0.0, first_ping)
        self.server = ServerSession(settings, 0.0, 1.0 - first_ping)
        self.events: dict[Session, list[Event]] = {self.client: [], self.server: []}
        self._ways = {self.client: (there, self.server), self.server: (back, self.client)}
        for session in self._ways:
            session.tls_done(0.0)
        self.client.hello(m.Hello(app="test"))
        self.flush()

    def flush(self) -> None:
        for session, (network, _) in self._ways.items():
            network.carry(session.data_to_send(), self.now)

    def run(self, until: float) -> None:
        while True:
            arrivals = [network.flying[0][0] for network, _ in self._ways.values() if network.flying]
            due = min([*arrivals, *(session.deadline for session in self._ways)])
            if due > until:
                self.now = until
                return
            self.now = due
            for network, target in self._ways.values():
                while network.flying and network.flying[0][0] <= due:
                    self._happened(target, target.receive(network.flying.popleft()[1], due))
            for session in self._ways:
                self._happened(session, session.tick(due))
            self.flush()

    def _happened(self, session: Session, events: list[Event]) -> None:
        self.events[session] += events
        for event in events:
            if isinstance(event, Received) and isinstance(event.message, m.Hello):
                self.server.welcome(m.Welcome(session_id="s"))

    def received(self, session: Session) -> list[m.Message]:
        return [event.message for event in self.events[session] if isinstance(event, Received)]


delays = st.lists(st.floats(0.0, 4.0), min_size=1, max_size=10)


def networks() -> st.SearchStrategy[Network]:
    return st.builds(Network, delays, chunkings)


class TestPair:
    @given(networks(), networks(), st.floats(0.0, 1.0))
    def test_in_peace_nothing_happens_for_an_hour(self, there: Network, back: Network, first_ping: float) -> None:
        world = World(SessionSettings(), first_ping, there, back)
        world.run(3600.0)
        assert world.received(world.server) == [m.Hello(app="test")]
        assert world.received(world.client) == [m.Welcome(session_id="s")]
        assert not [event for events in world.events.values() for event in events if isinstance(event, Closed | Faulted)]
        assert world.server.frames_received <= 2 + 3600 / 30 + 2

    @given(
        networks(),
        networks(),
        st.lists(st.sampled_from(TO_SERVER).filter(lambda message: not isinstance(message, ENDS)), max_size=8),
        st.lists(st.sampled_from(TO_CLIENT).filter(lambda message: not isinstance(message, ENDS)), max_size=8),
    )
    def test_what_one_sends_the_other_receives_in_order(
        self, there: Network, back: Network, requests: list[m.Message], pushes: list[m.Message]
    ) -> None:
        world = World(SessionSettings(), 0.5, there, back)
        world.run(120.0)
        for message in requests:
            world.client.send(message, 7)
            world.flush()
        for message in pushes:
            world.server.send(message)
            world.flush()
        world.run(240.0)
        assert world.received(world.server)[1:] == requests
        assert world.received(world.client)[1:] == pushes

    @given(networks(), networks())
    def test_a_drain_ends_on_both_sides(self, there: Network, back: Network) -> None:
        world = World(SessionSettings(), 0.5, there, back)
        world.run(120.0)
        world.server.drain(world.now, world.server.goaway(Code.DRAINING))
        world.flush()
        world.run(300.0)
        for session in (world.client, world.server):
            closed = world.events[session][-1]
            assert isinstance(closed, Closed)
            assert closed.code is Code.DRAINING

    @given(st.sampled_from(["client", "server"]), st.floats(0.0, 1.0))
    def test_a_side_that_falls_silent_is_lost(self, silent: str, first_ping: float) -> None:
        world = World(SessionSettings(), first_ping, Network([0.0], []), Network([0.0], []))
        world.run(1.0)
        mute = world.client if silent == "client" else world.server
        other = world.server if silent == "client" else world.client
        world._ways[mute] = (Network([1e12], []), other)
        world.run(500.0)
        closed = world.events[other][-1]
        assert isinstance(closed, Closed)
        assert closed.code is Code.HEARTBEAT_LOST


def events_of(session: Session, chunks: list[bytes]) -> tuple[list[Event], bytes, State, int]:
    session.tls_done(0.0)
    events = [event for chunk in chunks for event in session.receive(chunk, 1.0)]
    return events, session.data_to_send(), session.state, session.frames_received


class TestChunks:
    @given(st.lists(st.one_of(streams, messages.map(lambda message: (message,))), max_size=6), chunkings, st.booleans())
    def test_any_chunking_gives_the_same_events_and_answers(
        self, parts: list[bytes | tuple[m.Message]], cuts: list[int], is_client: bool
    ) -> None:
        greeting: m.Message = m.Welcome() if is_client else m.Hello()
        data = encode_frame(codec.encode(greeting))
        data += b"".join(part if isinstance(part, bytes) else encode_frame(codec.encode(part[0], 3)) for part in parts)
        make = ClientSession if is_client else ServerSession
        whole = events_of(make(SessionSettings(), 0.0), [data])
        assert events_of(make(SessionSettings(), 0.0), cut(data, cuts)) == whole
        assert events_of(make(SessionSettings(), 0.0), [bytes((byte,)) for byte in data]) == whole
