"""The bounds of the agent that are not a pool's."""

from __future__ import annotations

from dataclasses import dataclass

from streampush.apns.http2 import Limits
from streampush.apns.limit_checks import demand_positive
from streampush.apns.pool_limits import PoolLimits

KIB = 1024

_STREAMS = 100
_STREAM_WINDOW = 256 * KIB

AGENT_HTTP2 = Limits(
    max_streams=_STREAMS,
    stream_window=_STREAM_WINDOW,
    # twice what all streams can hold back, so that readers that pause never hold those that read
    connection_window=2 * _STREAMS * _STREAM_WINDOW,
    max_header_list_size=64 * KIB,
    max_block_size=64 * KIB,
)

AGENT_POOL = PoolLimits(probing_streams=_STREAMS)


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """Seconds, bytes, or numbers. Raises ValueError for a value that makes no sense.

    - `answer_timeout`: from the request, or from the last progress of its body, to the beginning of the answer.
    - `body_timeout`: between two parts of an answer's body, while its reader wants more.
    - `unclaimed_timeout`: for which an answer waits for its reader.
    - `gathered_body`: up to which a body of known length is collected before it is sent, so that the request can be repeated.
    - `max_hosts`: with connections at once. A caller that visits any number of hosts ends those that it does not use.
    - `pool`, `http2`: of each host.
    """

    answer_timeout: float = 60.0
    body_timeout: float = 60.0
    unclaimed_timeout: float = 60.0
    gathered_body: int = 64 * KIB
    max_hosts: int = 32
    pool: PoolLimits = AGENT_POOL
    http2: Limits = AGENT_HTTP2

    def __post_init__(self) -> None:
        demand_positive(self, or_zero=("gathered_body",))
