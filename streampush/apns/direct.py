"""Pushes without a message, over the clients that the outbox uses too: with its limits, its breaker and its connections."""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from streampush.apns.alert_block import with_defaults
from streampush.apns.app_clients import AppClients
from streampush.apns.apps import App, Apps
from streampush.apns.client_figures import named
from streampush.apns.errors import BadPush
from streampush.apns.outcome import Delivered, NotSent, Outcome, Refused, Rejected, Why, may_be_repeated
from streampush.apns.payload import Alert, InterruptionLevel, alert_payload, background_payload
from streampush.apns.push import PUSH_TYPES, ApnsPush, Priority, PushType, topic_for
from streampush.apns.reasons import treatment
from streampush.push.direct import BadDirectPush, DirectPush, DirectResult, NoApp
from streampush.push.values import Alert as Said

_FIELDS = frozenset({"device_token", "payload", "topic", "push_type", "priority", "collapse_id", "apns_id", "alert"})
"""Names that checks of a push use and its sender knows; others are of parts of the alert."""

_UNREACHABLE = frozenset({Why.NO_CONNECTION, Why.DEADLINE, Why.BREAKER_OPEN})
"""What there may be a fault of the connections behind."""


class DirectPushes:
    """Sends them. `wall`: Unix seconds. `new_id`: makes UUIDs."""

    def __init__(
        self, apps: Apps, clients: AppClients, clock: IReactorTime, *, wall: Callable[[], float], new_id: Callable[[], str]
    ) -> None:
        self._apps = apps
        self._clients = clients
        self._clock = clock
        self._wall = wall
        self._new_id = new_id

    async def push(self, asked: DirectPush, timeout: float) -> DirectResult:
        """How it ended, after `timeout` seconds at most. Raises NoApp and BadDirectPush."""
        app = self._app(asked.app)
        client = self._clients.of(app)
        if client is None:  # the node stops
            return self._result(app, asked.push_id, NotSent(Why.STOPPING), collapsible=False)
        try:
            push = self._made(app, asked)
            outcome = await client.push(push, deadline=self._clock.seconds() + timeout)
        except BadPush as error:
            name = error.field if error.field in _FIELDS else "ttl" if error.field == "expiration" else f"alert.{error.field}"
            raise BadDirectPush(name, error.problem) from error
        return self._result(app, push.apns_id, outcome, collapsible=bool(push.collapse_id))

    def _app(self, name: str) -> App:
        apps = self._apps.all
        names = ", ".join(apps)
        if not apps:
            raise NoApp("no app is configured to push with: [[apns.apps]]", configured=False)
        if not name and len(apps) > 1:
            raise BadDirectPush("app", f"say which: {names}")
        app = apps.get(name) if name else next(iter(apps.values()))
        if app is None:
            raise NoApp(f"app: there is no app of this name, there are: {names}", configured=True)
        return app

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

    def _result(self, app: App, apns_id: str, outcome: Outcome, *, collapsible: bool) -> DirectResult:
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
            case Refused():
                meaning = "it was sent, and certainly not looked at"
            case _:
                meaning = "it was sent, and no answer came: it may have been shown"
        repeat = may_be_repeated(outcome, collapsible=collapsible) or outcome == NotSent(Why.DEADLINE)
        return DirectResult(kind, apns_id, status, reason, meaning, advice, repeat, retry_after)

    def _fault(self, app: App) -> str:
        """Why there is no connection, or empty."""
        pool = self._clients.pools.get(app.route)
        return "" if pool is None else pool.figures().fault


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
