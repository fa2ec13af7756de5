"""Pushes without a message, over the clients that the outbox uses too: with its limits, its breaker and its connections."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from streampush.apns.alert_block import with_defaults
from streampush.apns.app_clients import AppClients
from streampush.apns.apps import App, Apps
from streampush.apns.client_figures import named
from streampush.apns.errors import BadPush
from streampush.apns.outcome import Delivered, NotSent, Outcome, Refused, Rejected, Why, may_be_repeated
from streampush.apns.payload import Alert, InterruptionLevel, alert_payload, background_payload
from streampush.apns.push import PUSH_TYPES, ApnsPush, Priority, PushType, topic_for
from streampush.apns.reasons import REASONS, treatment
from streampush.apns.verdicts import Verdicts
from streampush.errors import StoreUnavailable
from streampush.push.direct import BadDirectPush, DirectPush, DirectResult, NoApp
from streampush.push.values import Alert as Said
from streampush.push.values import PushToken

DropToken: TypeAlias = Callable[[PushToken, int], Awaitable[bool]]

_FIELDS = frozenset({"device_token", "payload", "topic", "push_type", "priority", "collapse_id", "apns_id", "alert"})
"""Names that checks of a push use and its sender knows; others are of parts of the alert."""

_UNREACHABLE = frozenset({Why.NO_CONNECTION, Why.DEADLINE, Why.BREAKER_OPEN})
"""What there may be a fault of the connections behind."""


class DirectPushes:
    """Sends them. `wall`: Unix seconds. `new_id`: makes UUIDs.

    `drop_token` is asked to forget a device token that was no longer good at a time, Unix milliseconds, and says whether a device
    had it, with the same topic and environment, and had not registered it since. It may raise StoreUnavailable.
    """

    _log = Logger()

    def __init__(
        self,
        apps: Apps,
        clients: AppClients,
        verdicts: Verdicts,
        clock: IReactorTime,
        drop_token: DropToken,
        *,
        wall: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._apps = apps
        self._clients = clients
        self._verdicts = verdicts
        self._clock = clock
        self._drop_token = drop_token
        self._wall = wall
        self._new_id = new_id

    async def push(self, asked: DirectPush, timeout: float) -> DirectResult:
        """How it ended, after `timeout` seconds at most. Raises NoApp and BadDirectPush."""
        app = choose_app(self._apps, asked.app)
        client = self._clients.of(app)
        if client is None:  # the node stops
            return self._result(app, asked.push_id, NotSent(Why.STOPPING), collapsible=False)
        sent_at_ms = int(self._wall() * 1000)
        try:
            push = self._made(app, asked)
            outcome = await client.push(push, deadline=self._clock.seconds() + timeout)
        except BadPush as error:
            name = error.field if error.field in _FIELDS else "ttl" if error.field == "expiration" else f"alert.{error.field}"
            raise BadDirectPush(name, error.problem) from error
        dropped = await self._look_dead(app, push, outcome, sent_at_ms)
        return self._result(app, push.apns_id, outcome, collapsible=bool(push.collapse_id), token_dropped=dropped)

    async def _look_dead(self, app: App, push: ApnsPush, outcome: Outcome, sent_at_ms: int) -> bool:
        """Whether a device has lost the token, because Apple says that it is dead."""
        dead_at_ms = self._verdicts.dead_at_ms(app, outcome, registered_at_ms=0, sent_at_ms=sent_at_ms)
        if dead_at_ms is None:
            return False
        token = PushToken(bytes.fromhex(push.device_token), push.topic, sandbox=app.settings.environment == "sandbox")
        try:
            return await self._drop_token(token, dead_at_ms - 1)  # one that was registered in that millisecond is alive
        except StoreUnavailable as away:  # the next push of a message to the device will find it out again
            self._log.warn("a device token that Apple calls dead stays, the store is away: {problem}", problem=away.detail)
            return False

    # ---------------------------------------------------------------------------------------------------------------- the push

    def _made(self, app: App, asked: DirectPush) -> ApnsPush:
        push_type, payload = _content(app, asked)
        topic = asked.topic or topic_for(app.settings.bundle_id, push_type)
        if topic not in app.topics and all(topic != topic_for(one, push_type) for one in app.topics):
            raise BadPush("topic", "is none of the app's: its bundle id or one of its topics, with the push type's suffix")
        allowed = PUSH_TYPES[push_type].priorities
        ttl = app.settings.expiration if asked.ttl is None else asked.ttl
        return ApnsPush(
            device_token=asked.device_token,
            payload=payload,
            topic=topic,
            push_type=push_type,
            priority=asked.priority or (Priority.IMMEDIATE if Priority.IMMEDIATE in allowed else max(allowed)),
            expiration=int(self._wall() + ttl) if ttl else 0,
            collapse_id=asked.collapse_id,
            apns_id=asked.push_id or self._new_id(),
        )

    # -------------------------------------------------------------------------------------------------------------- the result

    def _result(self, app: App, apns_id: str, outcome: Outcome, *, collapsible: bool, token_dropped: bool = False) -> DirectResult:
        kind, reason = named(outcome)
        status, advice, retry_after = 0, "", None
        match outcome:
            case Delivered():
                status, meaning = 200, "Apple took it; whether the device showed it Apple does not tell"
            case Rejected(status, reason):
                known = treatment(status, reason)
                meaning, advice, retry_after = known.meaning, known.advice, outcome.retry_after
            case NotSent(why):
                meaning, retry_after = "Apple never had it", outcome.retry_after
                if why in _UNREACHABLE:
                    advice = self._fault(app)
                elif why is Why.CREDENTIAL_STOPPED:
                    advice = self._refusal(app)
                elif why is Why.TOPIC_STOPPED:
                    advice = "Apple refuses the topic: " + REASONS["TopicDisallowed"].advice
            case Refused():
                meaning = "it was sent, and certainly not looked at"
            case _:
                meaning = "it was sent, and no answer came: it may have been shown"
        repeat = may_be_repeated(outcome, collapsible=collapsible) or outcome == NotSent(Why.DEADLINE)
        return DirectResult(kind, apns_id, status, reason, meaning, advice, repeat, retry_after, token_dropped)

    def _refusal(self, app: App) -> str:
        """What Apple says of the credential, and what to do."""
        client = self._clients.of(app)
        reason = "" if client is None else client.figures().stopped_by
        known = REASONS.get(reason)
        return f"Apple refuses the key or certificate: {reason}" + ("" if known is None else f": {known.meaning}; {known.advice}")

    def _fault(self, app: App) -> str:
        """Why there is no connection, or empty."""
        pool = self._clients.pools.get(app.route)
        return "" if pool is None else pool.figures().fault


def choose_app(all_apps: Apps, name: str) -> App:
    """The app of this name, or the only one if it is empty. Raises NoApp and BadDirectPush."""
    apps = all_apps.all
    names = ", ".join(apps)
    if not apps:
        raise NoApp("no app is configured to push with: [[apns.apps]]", configured=False)
    if not name and len(apps) > 1:
        raise BadDirectPush("app", f"say which: {names}")
    app = apps.get(name) if name else next(iter(apps.values()))
    if app is None:
        raise NoApp(f"app: there is no app of this name, there are: {names}", configured=True)
    return app


def _content(app: App, asked: DirectPush) -> tuple[PushType, bytes]:
    """The push type and the payload. Raises BadPush."""
    if asked.alert is not None:
        alert = _alert(asked.alert)
        if asked.alert.background:
            return PushType.BACKGROUND, background_payload(alert)
        return PushType.ALERT, alert_payload(with_defaults(alert, app.settings))
    try:
        push_type = PushType(asked.push_type or PushType.ALERT)
    except ValueError:
        raise BadPush("push_type", f"is none of {', '.join(PushType)}") from None
    return push_type, asked.payload.encode()


def _alert(said: Said) -> Alert:
    """In the words of payload.py. Raises BadPush."""
    level = said.interruption_level
    if level and level not in set(InterruptionLevel):
        raise BadPush("interruption_level", f"is none of {', '.join(InterruptionLevel)}")
    return Alert(
        title=said.title,
        subtitle=said.subtitle,
        body=said.body,
        badge=said.badge,
        sound=said.sound or None,
        category=said.category,
        thread_id=said.thread_id,
        mutable_content=said.mutable_content,
        interruption_level=InterruptionLevel(level) if level else None,
        relevance_score=said.relevance_score,
        custom=json.loads(said.custom) if said.custom else {},
    )
