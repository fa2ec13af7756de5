"""The way to devices that are away, over Apple's push service: what `push/` orders becomes a push, and its outcome an answer.

Every push has a collapse id, so that a repeat of one that Apple did not answer takes the place of the first on the device: of the
message's collapse key within its channel if it has one, else the message's id.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from streampush.apns.alert_block import payload_of
from streampush.apns.app_clients import AppClients
from streampush.apns.apps import App, Apps
from streampush.apns.client import ApnsClient
from streampush.apns.errors import BadPush
from streampush.apns.outcome import Delivered, NotSent, Outcome, Refused, Rejected, UnknownPolicy, Why, may_be_repeated
from streampush.apns.ports import ApnsMetrics
from streampush.apns.push import ApnsPush, Priority, PushType
from streampush.apns.quick_deferred import QuickDeferred
from streampush.apns.reasons import Action, treatment
from streampush.apns.sending import Sending
from streampush.apns.shares import Shares
from streampush.apns.verdicts import Verdicts
from streampush.protocol.terms import Priority as Urgency
from streampush.push.values import PushAnswer, PushOrder, PushOutcome, PushToken

SEND_TIMEOUT = 25.0
"""Seconds of one try of the outbox, with the repeats in it: below half of its lease."""

HELD_LOOK = 300.0
"""Seconds between two tries while Apple refuses the key or certificate. A reload has what this process put off tried at once."""

LATER = 30.0
"""Seconds until the next try of what had no answer, no connection or no room, where nobody names a time. Long enough for the
outbox not to be busy with an outage."""

SPREAD = 0.25
"""Share of these times that is added at random, so that what failed together does not come back together."""

KEPT_PAYLOADS = 64
"""Messages of which the payload is kept: a message to many devices is encoded once. At most 4 KiB each."""

NO_APP = "no app for its topic"

BUSY = "its app has as many under way as it may"

DEFAULT_FALLBACK_AFTER = 5.0
"""Seconds, for a device token of an app that is not configured: nothing will be sent, so it hardly matters."""

_SOON = frozenset({Why.QUEUE_FULL, Why.NO_ROOM, Why.APP_RATE})
"""What is over when others are through."""


class ApnsSender:
    """The port push.ports.PushSender. `max_in_flight`: orders that it takes at once, which the apps share. `wall`: Unix seconds."""

    def __init__(
        self,
        apps: Apps,
        clients: AppClients,
        verdicts: Verdicts,
        clock: IReactorTime,
        *,
        max_in_flight: int,
        wall: Callable[[], float],
        metrics: ApnsMetrics,
        random: Random,
    ) -> None:
        self._apps = apps
        self._clients = clients
        self._verdicts = verdicts
        self._clock = clock
        self._max_in_flight = max_in_flight
        self._wall = wall
        self._metrics = metrics
        self._random = random
        self._shares = Shares(max_in_flight)
        self._shares.reload(apps.all)
        self._payloads: OrderedDict[tuple[str, str], tuple[App, PushType, bytes]] = OrderedDict()
        self._under_way: dict[str, tuple[ApnsClient, Sending]] = {}
        apps.watch(self._reloaded)

    @property
    def ready(self) -> bool:
        """See PushSender."""
        return len(self._apps) > 0

    @property
    def max_in_flight(self) -> int:
        """See PushSender."""
        return self._max_in_flight

    def fallback_after(self, token: PushToken) -> float:
        """See PushSender."""
        app = self._apps.of_token(token.topic, token.sandbox)
        return DEFAULT_FALLBACK_AFTER if app is None else app.settings.fallback_after

    def watch(self, mended: Callable[[], None]) -> None:
        """See PushSender. A reload lifts what Apple's answers had stopped."""
        self._apps.watch(mended)

    def has_room(self, token: PushToken) -> bool:
        """See PushSender."""
        app = self._apps.of_token(token.topic, token.sandbox)
        return app is None or self._shares.has_room(app.name)

    async def send(self, order: PushOrder) -> PushAnswer:
        """See PushSender."""
        app = self._apps.of_token(order.token.topic, order.token.sandbox)
        client = None if app is None else self._clients.of(app)
        if app is None or client is None:
            return PushAnswer(PushOutcome.NOT_SENT, NO_APP)
        now = self._clock.seconds()
        pause = self._shares.enter(app.name, now)
        if pause:
            self._metrics.order_put_off(app.name)
            return PushAnswer(PushOutcome.NOT_SENT, BUSY, again_in=pause)
        sent_at = self._wall()
        result: Deferred[Outcome] = QuickDeferred()
        try:
            push = self._push(order, app, sent_at)
            self._under_way[order.push_id] = client, client.send(push, now + SEND_TIMEOUT, result.callback)
            try:
                outcome = await result
            finally:
                del self._under_way[order.push_id]
        except BadPush as error:
            return PushAnswer(PushOutcome.NOT_SENT, str(error))
        finally:
            self._shares.leave(app.name, self._clock.seconds())
        return self._answer(order, app, outcome, int(sent_at * 1000))

    def withdraw(self, push_id: str) -> None:
        """See PushSender."""
        client, sending = self._under_way.get(push_id, (None, None))
        if client is not None and sending is not None:
            client.cancel(sending)

    def _reloaded(self) -> None:
        """The defaults in the payloads may be others now."""
        self._shares.reload(self._apps.all)
        self._payloads.clear()

    # ---------------------------------------------------------------------------------------------------------------- the push

    def _push(self, order: PushOrder, app: App, wall: float) -> ApnsPush:
        push_type, payload = self._payload(order, app)
        considerate = push_type is PushType.BACKGROUND or order.priority is Urgency.LOW
        return ApnsPush(
            device_token=order.token.token.hex(),
            payload=payload,
            topic=order.token.topic,
            push_type=push_type,
            priority=Priority.CONSIDERATE if considerate else Priority.IMMEDIATE,
            expiration=_expiration(app, order, wall),
            collapse_id=collapse_id(order),
            apns_id=order.push_id,
        )

    def _payload(self, order: PushOrder, app: App) -> tuple[PushType, bytes]:
        key = (order.message_id, app.name)
        known = self._payloads.get(key)
        if known is None:
            push_type, payload = payload_of(order.alert, order.message_id, order.channel, app.settings)
            known = self._payloads[key] = (app, push_type, payload)
            if len(self._payloads) > KEPT_PAYLOADS:
                self._payloads.popitem(last=False)
        return known[1], known[2]

    # -------------------------------------------------------------------------------------------------------------- the answer

    def _answer(self, order: PushOrder, app: App, outcome: Outcome, sent_at_ms: int) -> PushAnswer:
        registered_at_ms = order.token.registered_at_ms
        dead_at_ms = self._verdicts.dead_at_ms(app, outcome, registered_at_ms=registered_at_ms, sent_at_ms=sent_at_ms)
        if isinstance(outcome, Delivered):
            return PushAnswer(PushOutcome.DELIVERED, "", order.push_id)
        again = self._again_in(app, outcome)
        again_in = None if again is None else again * (1 + self._random.uniform(0.0, SPREAD))
        match outcome:
            case Rejected(status, reason):
                said = reason or f"status {status}"
                held = treatment(status, reason).action is Action.STOP_CREDENTIAL
                return PushAnswer(PushOutcome.REJECTED, said, order.push_id, again_in, dead_at_ms, held)
            case NotSent(why) | Refused(why):
                held = why is Why.CREDENTIAL_STOPPED
                return PushAnswer(PushOutcome.NOT_SENT, why.value.replace("_", " "), "", again_in, held=held)
            case _:
                return PushAnswer(PushOutcome.UNKNOWN, outcome.why.value.replace("_", " "), order.push_id, again_in)

    def _again_in(self, app: App, outcome: Outcome) -> float | None:
        """Seconds until another try is worth while, None: never."""
        if outcome == NotSent(Why.CANCELLED):
            return 0.0  # it was withdrawn, to be looked at again
        if not may_be_repeated(outcome, collapsible=True, policy=UnknownPolicy(app.settings.repeat_unknown)):
            return LATER if outcome == NotSent(Why.DEADLINE) else None  # it was this try's deadline, not the message's
        match outcome:
            case NotSent(Why.STOPPING):
                return 0.0
            case NotSent(Why.TOPIC_STOPPED):
                return None
            case NotSent(Why.CREDENTIAL_STOPPED):
                return HELD_LOOK
            case NotSent(why, retry_after):
                return retry_after or (1.0 if why in _SOON else LATER)
            case Rejected(status, reason):
                return self._after_rejection(app, outcome, treatment(status, reason).action)
            case _:
                return LATER

    def _after_rejection(self, app: App, outcome: Rejected, action: Action) -> float:
        if outcome.retry_after is not None:
            return outcome.retry_after
        if action is Action.STOP_CREDENTIAL:
            return HELD_LOOK
        return app.settings.server_error_wait if action is Action.LATER else LATER


def collapse_id(order: PushOrder) -> str:
    """What a later push must have in common with this one to take its place. A collapse key counts within its channel, and may be
    longer than Apple allows, so both go through a hash of 64 digits."""
    if not order.collapse_key:
        return order.message_id
    return hashlib.sha256(f"{order.channel}\0{order.collapse_key}".encode()).hexdigest()


def _expiration(app: App, order: PushOrder, wall: float) -> int:
    """Unix seconds until which Apple is to try, 0: once."""
    if not app.settings.expiration:
        return 0
    until = int(wall + app.settings.expiration)
    return min(until, order.expires_at_ms // 1000) if order.expires_at_ms else until
