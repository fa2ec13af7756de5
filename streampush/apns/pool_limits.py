"""Every bound of a pool and its connections that is not HTTP/2's own (those are in http2.limits)."""

from __future__ import annotations

from dataclasses import dataclass

from streampush.apns.limit_checks import demand_positive

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Seconds, bytes, or numbers. Raises ValueError for a value that makes no sense.

    Connections of one pool:

    - `max_connections`: that take new requests. One carries a thousand requests at a time, so more help only where the server
      allows few streams, and Apple takes many connections for an attack.
    - `max_leaving`: connections beside those that drain or are to be replaced; a server that sends GOAWAY on each and leaves
      requests without an answer gets no more until some have ended.
    - `full_patience`: for which all connections must have been full before another is opened. A limit that the server raises
      within some round trips needs no second connection.
    - `dial_interval`: at least between the openings of two connections.
    - `connect_timeout`: for names, TCP, proxy and TLS of one connection together.
    - `attempt_timeout`: for TCP to one address, if the host has several.
    - `probing_streams`: at once on a connection until its first answer. One costs no more than that when the server does not like
      us.
    - `probing_timeout`: after which a connection counts as good without an answer, so that one slow answer does not hold all
      others.
    - `doubt_interval`: between two PINGs that ask after a late answer; where deadlines are shorter than answers take, all are late.
    - `max_age`: of a connection, until another takes its place; servers that were added get their share. `age_jitter`: share of
      it by which ages differ, so that connections that began together do not end together.
    - `spare_ids`: requests that a connection can still take when it begins to be replaced because its stream ids, 2**30 in all,
      end.
    - `idle_timeout`: without a request, after which a connection that is not the last one closes.
    - `drain_timeout`: for what is under way when a pool stops.
    - `close_timeout`: for the server to take our last bytes; then the connection is reset.

    Connecting again:

    - `first_backoff`, `max_backoff`: top of the wait after the first failure, and of any wait; it doubles, and is at random below.
    - `connect_patience`: of failing, after which what waits is told so, and what comes is told at once until the next try.

    Waiting requests of one pool:

    - `max_queued`, `max_queued_bytes`: more would wait longer than the queue drains in some seconds, and cost memory.
    - `max_wait`: what did not get its turn by then is late in any case.

    One request:

    - `max_tries`: streams that it may have, when servers refuse it or end connections over it.
    - `first_rest`: top of the wait before the second try of what a server refused, doubling; some round trips, in which its limit
      becomes known.
    - `deadline_grain`: by which a request may end before its deadline, so that many with near deadlines are looked at together.

    What is remembered:

    - `timeline`: events of one connection. `kept_timelines`: connections that are over.
    """

    max_connections: int = 4
    max_leaving: int = 16
    full_patience: float = 0.5
    dial_interval: float = 0.25
    connect_timeout: float = 10.0
    attempt_timeout: float = 3.0
    probing_streams: int = 1
    probing_timeout: float = 1.0
    doubt_interval: float = 1.0
    max_age: float = 6 * 3600.0
    age_jitter: float = 0.2
    spare_ids: int = 20_000
    idle_timeout: float = 600.0
    drain_timeout: float = 10.0
    close_timeout: float = 5.0

    first_backoff: float = 0.2
    max_backoff: float = 30.0
    connect_patience: float = 3.0

    max_queued: int = 20_000
    max_queued_bytes: int = 64 * MIB
    max_wait: float = 30.0

    max_tries: int = 8
    first_rest: float = 0.01
    deadline_grain: float = 0.05

    timeline: int = 40
    kept_timelines: int = 10

    def __post_init__(self) -> None:
        demand_positive(self, or_zero=_MAY_BE_ZERO)
        if self.age_jitter >= 1:
            raise ValueError(f"age_jitter {self.age_jitter} is a share below 1")


_MAY_BE_ZERO = frozenset(
    {"full_patience", "dial_interval", "age_jitter", "first_backoff", "first_rest", "max_queued", "kept_timelines"}
)
