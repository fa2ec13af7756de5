"""Heartbeats that tell jitter from loss: docs/protocol.md section 7.

Any frame from the peer is life, so a ping goes out on silence only. Silence is measured from the last frame:

    0 ... (misses - 1) intervals            normal
    (misses - 1) ... misses intervals       jitter: noticed and counted, never cut
    misses intervals and more               lost

Ping number k goes out at k intervals of silence, the last one `reply_timeout` before the peer counts as lost, so that every
ping had its full reply timeout when the connection is given up. A ping that goes out late, because this process or its machine
slept, moves the rest of the schedule: nobody is lost because the watcher slept. The first ping of a connection comes at a random
point of the interval, so that connections that began together do not beat in step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Beat(Enum):
    """What a heartbeat asks for or reports."""

    PING_DUE = "ping_due"
    PING_MISSED = "ping_missed"
    JITTER = "jitter"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class HeartbeatSettings:
    """Seconds; `misses` pings without any frame in return make a lost peer.

    Raises ValueError if a ping could not be answered before the next: 0 < reply_timeout <= interval, misses >= 1; and for one
    miss a reply_timeout above half of the interval, as it would ask for a ping right behind every frame.
    """

    interval: float = 30.0
    reply_timeout: float = 10.0
    misses: int = 3
    min_ping_interval: float = 10.0
    steps: tuple[tuple[float, Beat], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.reply_timeout <= self.interval:
            raise ValueError(f"reply_timeout {self.reply_timeout} must be above 0 and at most interval {self.interval}")
        if self.misses < 1:
            raise ValueError(f"misses {self.misses} must be at least 1")
        if self.misses == 1 and self.reply_timeout > self.interval / 2:
            raise ValueError(f"reply_timeout {self.reply_timeout} must be at most half of interval {self.interval} for one miss")
        lost_after = self.misses * self.interval
        steps: list[tuple[float, Beat]] = []
        for number in range(1, self.misses + 1):
            ping_at = number * self.interval if number < self.misses else lost_after - self.reply_timeout
            steps.append((ping_at, Beat.PING_DUE))
            steps.append((ping_at + self.reply_timeout, Beat.PING_MISSED))
        if self.misses > 1:
            steps.append((lost_after - self.interval, Beat.JITTER))
        steps.append((lost_after, Beat.LOST))
        steps.sort(key=lambda step: step[0])  # stable: at one time a ping precedes the miss, the miss the loss
        object.__setattr__(self, "steps", tuple(steps))


class Heartbeat:
    """One side's watch over the other; time is an input, in seconds of a monotonic clock.

    `first`: the point of the interval, 0 to 1, where the first ping goes out.
    """

    __slots__ = ("_first_ping_at", "_last_heard", "_late", "_ping_id", "_ping_sent_at", "_step", "settings")

    def __init__(self, settings: HeartbeatSettings, now: float, first: float) -> None:
        self.settings = settings
        self._last_heard = now
        self._late = 0.0  # by how much pings went out late since then
        self._first_ping_at: float | None = now + first * settings.steps[0][0]
        self._step = 0
        self._ping_id = 0
        self._ping_sent_at: float | None = None

    @property
    def deadline(self) -> float:
        """When `poll` has something to say, unless the peer is heard before."""
        if self._first_ping_at is not None:
            return self._first_ping_at
        return self._last_heard + self.settings.steps[self._step][0] + self._late

    def silence(self, now: float) -> float:
        return now - self._last_heard

    def heard(self, now: float) -> None:
        """A frame of any kind arrived."""
        self._last_heard = now
        self._late = 0.0
        self._step = 0

    def change(self, settings: HeartbeatSettings, now: float) -> None:
        """Goes on with another policy, which counts from now; there is no random first ping."""
        self.settings = settings
        self._first_ping_at = None
        self.heard(now)

    def poll(self, now: float) -> list[Beat]:
        """What has come due, oldest first; ends with LOST if it has come to that."""
        beats: list[Beat] = []
        if self._first_ping_at is not None and now >= self._first_ping_at:
            self._first_ping_at = None
            beats.append(Beat.PING_DUE)
        steps = self.settings.steps
        while self._step < len(steps):
            offset, beat = steps[self._step]
            due = self._last_heard + offset + self._late
            if now < due:
                break
            if beat is not Beat.PING_DUE:
                beats.append(beat)
            else:
                self._late += now - due
                if beat not in beats:  # one ping serves for the first of the connection too
                    beats.append(beat)
            self._step += 1
        if self._step == len(steps):
            self._step -= 1  # lost stays lost, and `deadline` stays defined
        return beats

    def ping_sent(self, now: float) -> int:
        """The id for a ping that goes out now."""
        self._ping_id += 1
        self._ping_sent_at = now
        return self._ping_id

    def pong(self, ping_id: int, now: float) -> float | None:
        """The round trip in seconds, or None if this answers no open ping."""
        sent_at = self._ping_sent_at
        if sent_at is None or ping_id != self._ping_id:
            return None
        self._ping_sent_at = None
        return now - sent_at
