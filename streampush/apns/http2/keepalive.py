"""When to ask whether the server lives, and when to give it up. Any frame is life, so a PING goes out on silence only.

A watcher that slept (the process was stopped, the machine was suspended) finds a deadline long past, while the answer may
wait in the socket: then the wait begins anew, once, instead of giving up a connection that lives.
"""

from __future__ import annotations

from enum import Enum

from streampush.apns.http2.limits import Limits


class Due(Enum):
    """What time asks for."""

    NOTHING = "nothing"
    PING = "ping"
    GIVE_UP = "give_up"
    SETTINGS_LATE = "settings_late"


class Keepalive:
    """Silence, PINGs without answer, and the wait for SETTINGS. Times are seconds of a monotonic clock."""

    __slots__ = ("_heard_at", "_limits", "_next_id", "_sent", "_settings_deadline")

    def __init__(self, limits: Limits, first_ping_id: int) -> None:
        self._limits = limits
        self._next_id = first_ping_id
        self._heard_at = 0.0
        self._settings_deadline: float | None = None
        self._sent: dict[int, float] = {}  # id of each PING without an answer: when it went out

    def start(self, now: float) -> None:
        """The connection began; silence and the wait for SETTINGS count from here."""
        self._heard_at = now
        self._settings_deadline = now + self._limits.settings_timeout

    def heard(self, now: float) -> None:
        """A whole frame came."""
        self._heard_at = now

    def settled(self) -> None:
        """The server's SETTINGS are here and it has answered ours."""
        self._settings_deadline = None

    @property
    def unanswered(self) -> int:
        """PINGs without an answer."""
        return len(self._sent)

    @property
    def last_id(self) -> int:
        """The id of the last PING without an answer. Raises StopIteration without one."""
        return next(reversed(self._sent))

    def ping(self, now: float) -> int:
        """The id for a PING that goes out now."""
        ping_id = self._next_id
        self._next_id = (ping_id + 1) & (2**64 - 1)
        self._sent[ping_id] = now
        return ping_id

    def answered(self, ping_id: int, now: float) -> float | None:
        """Seconds that the answer took; None if there was no such PING."""
        sent_at = self._sent.pop(ping_id, None)
        if sent_at is None:
            return None
        while self._sent and next(iter(self._sent.values())) < sent_at:
            del self._sent[next(iter(self._sent))]  # PINGs are answered in order: no answer to this one will come
        return now - sent_at

    @property
    def deadline(self) -> float:
        """When `due` has something to say, unless the server is heard before."""
        silence = self._silence_deadline()
        return silence if self._settings_deadline is None else min(silence, self._settings_deadline)

    def _silence_deadline(self) -> float:
        if not self._sent:
            return self._heard_at + self._limits.ping_interval
        oldest = next(iter(self._sent.values()))
        return max(self._heard_at, oldest) + self._limits.ping_timeout

    def due(self, now: float) -> Due:
        """What has come due at `now`."""
        if self._settings_deadline is not None and now >= self._settings_deadline:
            return Due.SETTINGS_LATE
        deadline = self._silence_deadline()
        if now < deadline:
            return Due.NOTHING
        if not self._sent:
            return Due.PING
        if now - deadline > self._limits.ping_timeout:
            self._heard_at = now
            return Due.NOTHING
        return Due.GIVE_UP
