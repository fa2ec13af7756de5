"""The ports of `push/`: what it needs of the world, as protocols that adapters and tests implement.

The store's is `store_ports`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from streampush.protocol.codes import Code
from streampush.push.values import Publication, PushAnswer, PushOrder, PushToken, Subscription, SubscriptionRefused

Encoder = Callable[[Publication], bytes]
"""A publication's delivery frame: the same bytes for every follower."""

Scheduler = Callable[[Callable[[], None]], object]
"""Calls its argument once, after the present turn of the reactor."""


Spawner = Callable[[Coroutine[Any, Any, None]], object]
"""Runs a coroutine to its end and logs its failure."""


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """It will not. Not to be called after it has."""


Delayer = Callable[[float, Callable[[], None]], Timer]
"""Calls its second argument once, so many seconds from now."""


class Link(Protocol):
    """The way from an attachment to its connection."""

    def deliver(self, frames: bytes, messages: int) -> None:
        """Writes `messages` delivery frames; returns at once, what the socket does not take is buffered.

        Should not raise: then it is not known what went out, and the connection is closed.
        """

    def has_room(self) -> bool:
        """Whether the send buffer is below its high-water mark. When room comes back, `Attachment.room_again` is called."""

    def backlog_end(self, channel: str, offset: int) -> None:
        """Tells the device that the backlog of the channel is out."""

    def repositioned(self, subscription: Subscription | SubscriptionRefused) -> None:
        """Tells the device unasked where delivery on a channel goes on: it fell behind what the log keeps, or was subscribed by
        a backend; or that a backend has ended its subscription."""

    def wake_by(self, deadline: float) -> None:
        """`Attachment.tick` is to be called then (monotonic seconds), or soon after; an earlier wish stands."""

    def close(self, code: Code, detail: str) -> None:
        """Closes the connection for a reason of the application's."""


class PushSender(Protocol):
    """The way to devices that are away."""

    @property
    def ready(self) -> bool:
        """Whether there is anything that it could push to; until then the alerts of messages are checked, but not kept."""

    @property
    def max_in_flight(self) -> int:
        """How many pushes it takes at once."""

    def fallback_after(self, token: PushToken) -> float:
        """Seconds that a connected device with this token has to acknowledge a message that does not say how long."""

    def watch(self, mended: Callable[[], None]) -> None:
        """`mended` is called from now on when pushes whose answer was `held` may go through."""

    def has_room(self, token: PushToken) -> bool:
        """Whether a push to this token would go now, as far as other pushes are in its way: apps share what may be in flight."""

    async def send(self, order: PushOrder) -> PushAnswer:
        """Sends one push, and says how it ended; many are sent at once.

        Ends within half of leasing.LEASE, whatever happens; what could not be sent until then is an answer with `again_in`. What
        has no room is answered like that at once, so that it does not hold up those that have. When the process stops, pushes
        that are not sent yet end at once with `again_in` 0. Raises nothing but faults of its own.
        """

    def withdraw(self, push_id: str) -> None:
        """The push of this id is to be looked at again: if it is not written yet, its `send` ends at once with `again_in` 0."""


class PushMetrics(Protocol):
    """What `push/` counts. All methods are cheap and never raise."""

    def published(self, kind: str, size: int) -> None:
        """A publication was stored; `kind` is the kind of the principal."""

    def not_published(self, reason: str) -> None:
        """A publish was answered well, and nothing was stored: "duplicate" or "superseded"."""

    def fired(self, publications: int, late: float) -> None:
        """Scheduled publications were appended, the earliest of them `late` seconds after its time."""

    def schedule_stalled(self) -> None:
        """The store was not there when scheduled publications were due."""

    def recalled(self, was: str) -> None:
        """A message was recalled that was "stored" or "scheduled", "recalled" already, or "processed" on another device."""

    def refused(self, code: Code) -> None:
        """A request was refused."""

    def fanned_out(self, deliveries: int, publications: int, oldest_wait: float) -> None:
        """Publications of one channel were written to `deliveries` connections, `oldest_wait` seconds after the publish."""

    def read_from_log(self, deliveries: int) -> None:
        """Publications were read from the log for a connection that had fallen behind."""

    def acknowledged(self, outcome: str) -> None:
        """An acknowledgement moved a cursor, or named an outcome."""

    def acknowledgement_ignored(self, reason: str) -> None:
        """An acknowledgement said nothing new ("older"), or was of another log ("other_epoch")."""

    def redelivered(self, reason: str) -> None:
        """A delivery was written again: not answered in time ("timeout"), or the device had asked for it ("retry_later")."""

    def dead_lettered(self, reason: str) -> None:
        """A publication was given up for a device: "timeout" or "retry_later"."""

    def positions_lost(self, reason: str) -> None:
        """A subscription could not be recovered without loss."""

    def fell_back(self, outcome: str, count: int) -> None:
        """Follow-ups of messages to devices ended so: the words of PushOutcome."""

    def fallback_stalled(self) -> None:
        """The store was not there when follow-ups were due."""

    def left_behind(self, count: int) -> None:
        """So many publications left their logs by a limit before durable followers had taken them, counted for each follower."""

    def marks_dropped(self, count: int) -> None:
        """Milestones were not stored: the store was away for too long."""
