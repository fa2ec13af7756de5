"""Channels for Live Activities, as backends ask about them: in the words of push.live."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from streampush.apns.app_clients import AppClients
from streampush.apns.apps import App, Apps
from streampush.apns.broadcast import Broadcast, Channel, Storage
from streampush.apns.broadcast_sender import BroadcastSender, Created, Deleted, Listed, NotDone, Published
from streampush.apns.client_figures import named
from streampush.apns.direct import choose_app
from streampush.apns.errors import BadPush
from streampush.apns.outcome import NotSent, Refused, Rejected, Unknown
from streampush.apns.push import Priority
from streampush.apns.reasons import Action, treatment
from streampush.push.direct import BadDirectPush
from streampush.push.live import LiveAction, LiveRequest, LiveResult

_FIELDS = {"channel_id": "channel", "expiration": "ttl"}
"""Names of requests where the fields that they come from are called otherwise."""

_AGAIN = frozenset({Action.RETRY, Action.LATER, Action.NEW_CONNECTION, Action.NEW_PROVIDER_TOKEN, Action.REST_CONNECTION})
"""What may be otherwise at the next try. The channel or the credential will not be."""

_HARMLESS = frozenset({LiveAction.LIST, LiveAction.READ, LiveAction.DELETE})
"""What may be done twice."""


class LiveChannels:
    """Asks for the apps in force. `wall`: Unix seconds."""

    def __init__(self, apps: Apps, clients: AppClients, clock: IReactorTime, *, wall: Callable[[], float]) -> None:
        self._apps = apps
        self._sender = clients.broadcasts
        self._clock = clock
        self._wall = wall

    async def ask(self, asked: LiveRequest, timeout: float) -> LiveResult:
        """How it ended, after `timeout` seconds at most. Raises NoApp and BadDirectPush."""
        app = choose_app(self._apps, asked.app)
        try:
            ended = await self._ask(app, asked, self._clock.seconds() + timeout)
        except BadPush as error:
            raise BadDirectPush(_FIELDS.get(error.field, error.field), error.problem) from error
        return _result(asked, ended)

    async def _ask(
        self, app: App, asked: LiveRequest, deadline: float
    ) -> Created | Listed | Channel | Deleted | Published | NotDone:
        sender: BroadcastSender = self._sender
        match asked.action:
            case LiveAction.CREATE:
                storage = Storage.LATEST if asked.keep_latest else Storage.NOTHING
                return await sender.create(app.name, storage, deadline=deadline)
            case LiveAction.LIST:
                return await sender.list(app.name, deadline=deadline)
            case LiveAction.READ:
                return await sender.read(app.name, asked.channel, deadline=deadline)
            case LiveAction.DELETE:
                return await sender.delete(app.name, asked.channel, deadline=deadline)
        until = int(self._wall() + asked.ttl) if asked.ttl else 0
        priority = asked.priority or Priority.IMMEDIATE
        message = Broadcast(asked.channel, asked.payload.encode(), until, priority, asked.request_id)
        return await sender.publish(app.name, message, deadline=deadline)


def _result(asked: LiveRequest, ended: Created | Listed | Channel | Deleted | Published | NotDone) -> LiveResult:
    match ended:
        case Created(channel_id):
            return LiveResult("done", channel=channel_id, keep_latest=asked.keep_latest)
        case Listed(channel_ids):
            return LiveResult("done", channels=channel_ids)
        case Channel(channel_id, storage):
            return LiveResult("done", channel=channel_id, keep_latest=storage is Storage.LATEST)
        case Deleted(channel_id):
            return LiveResult("done", channel=channel_id)
        case Published(request_id):
            return LiveResult("done", channel=asked.channel, request_id=request_id)
    return _not_done(asked, ended)


def _not_done(asked: LiveRequest, ended: NotDone) -> LiveResult:
    kind, reason = named(ended)
    match ended:
        case Rejected(status, said):
            known = treatment(status, said)
            again = known.action in _AGAIN
            return LiveResult(kind, status, reason, known.meaning, known.advice, again, ended.retry_after)
        case NotSent():
            return LiveResult(kind, 0, reason, "Apple never had it", "", repeat=True, retry_after=ended.retry_after)
        case Refused():
            return LiveResult(kind, 0, reason, "it was sent, and certainly not looked at", "", repeat=True)
        case Unknown():
            again = asked.action in _HARMLESS
            return LiveResult(kind, 0, reason, "it was sent, and no answer came: it may have been done", "", repeat=again)
