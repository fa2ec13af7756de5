"""Every bound of a client for one app's pushes that is not a policy's or a pool's own."""

from __future__ import annotations

from dataclasses import dataclass

from streampush.apns.limit_checks import demand_positive


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Seconds, bytes, or numbers, all above 0. Raises ValueError otherwise.

    - `max_queued`, `max_queued_bytes`: pushes that wait, for room or for their next try, and their payloads. Some seconds of what
      a connection carries; more would be late, and cost memory.
    - `answer_timeout`: of one try, from when it is given to the pool. Below BreakerPolicy.probe_timeout.
    - `answer_spare`: of a push's time, which a push that waits for room leaves for its answer, but a quarter of its time at most.
      What is sent later than that seldom has one in time, and nobody knows then whether it was shown.
    - `connection_rest`: of a connection on which Apple saw too many provider tokens.
    - `breaker_look`: at most between two looks of a push that waits for its next try behind an open breaker.
    - `clock_look`: between two looks at the clock in Apple's answers.
    - `token_look`: between two looks whether it is time for a new provider token.
    - `max_stopped_topics`: topics that Apple does not allow and that are remembered; others are tried.
    """

    max_queued: int = 20_000
    max_queued_bytes: int = 64 * 1024 * 1024
    answer_timeout: float = 10.0
    answer_spare: float = 0.5
    connection_rest: float = 60.0
    breaker_look: float = 1.0
    clock_look: float = 60.0
    token_look: float = 1.0
    max_stopped_topics: int = 1000

    def __post_init__(self) -> None:
        demand_positive(self)
