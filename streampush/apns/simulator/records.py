"""What the simulated Apple did, so that a test can hold it against what the client believes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from streampush.apns.simulator.broadcasts import Kind

DEFAULT_KEPT: Final = 200_000
"""Records that are kept one by one; the counts go on for ever."""


@dataclass(frozen=True, slots=True)
class Processed:
    """A push that was looked at. Accepted means delivered to the device; the client may never have heard of it.

    `at` is the simulator's time in seconds. `token_hash`: see `accounts.token_hash`; of a broadcast it is the channel id's.
    `reason`: Apple's word; empty: accepted.
    """

    apns_id: str
    token_hash: str
    topic: str
    push_type: str
    collapse_id: str
    payload_size: int
    connection: int
    stream_id: int
    at: float
    status: int
    reason: str = ""
    kind: Kind = Kind.PUSH

    @property
    def accepted(self) -> bool:
        """Whether the push went on to the device, or to the followers of a channel."""
        return not self.reason and self.kind is not Kind.CHANNELS


@dataclass(frozen=True, slots=True)
class ClientFault:
    """The client broke the protocol, on one stream or (0) the whole connection."""

    connection: int
    stream_id: int
    code: str
    text: str


class Ledger:
    """Records of what was processed, in order, and counts. `kept`: how many records, the latest."""

    __slots__ = ("_accepted", "_kept", "_records", "connections", "faults", "outcomes", "over_limit", "requests")

    def __init__(self, kept: int = DEFAULT_KEPT) -> None:
        self.connections = 0
        """Connections ever made."""
        self.requests = 0
        """Requests whose headers came, whatever became of them."""
        self.over_limit = 0
        """Requests refused because the client had more under way than it was allowed."""
        self.outcomes: Counter[str] = Counter()
        """How many were processed, by reason; the empty one: accepted."""
        self.faults: deque[ClientFault] = deque(maxlen=1000)
        self._kept = kept
        self._records: deque[Processed] = deque()
        self._accepted: Counter[str] = Counter()

    def add(self, record: Processed) -> None:
        """Remembers it, and forgets the oldest one if there are too many."""
        if record.kind is not Kind.CHANNELS:
            self.outcomes[record.reason] += 1
        self._records.append(record)
        if record.accepted:
            self._accepted[record.apns_id] += 1
        if len(self._records) > self._kept:
            oldest = self._records.popleft()
            if oldest.accepted:
                self._accepted[oldest.apns_id] -= 1
                if not self._accepted[oldest.apns_id]:
                    del self._accepted[oldest.apns_id]

    @property
    def accepted(self) -> int:
        """How many pushes were accepted in all."""
        return self.outcomes[""]

    def times_accepted(self, apns_id: str) -> int:
        """How often a push with that id was accepted; more than once is a double for its device."""
        return self._accepted[apns_id]

    def doubles(self) -> dict[str, int]:
        """The ids that were accepted more than once, with how often."""
        return {apns_id: times for apns_id, times in self._accepted.items() if times > 1}

    def __iter__(self) -> Iterator[Processed]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)
