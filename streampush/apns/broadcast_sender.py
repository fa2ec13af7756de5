"""Channels for Live Activities: made, listed, looked at, deleted and published to, over the pools of the app's credential.

Source: Apple, "Sending broadcast push notification requests to APNs" and "Sending channel management requests to APNs".

Theory of operation. There are few of these requests: one broadcast reaches everybody who follows, so they need none of the policies
of pushes. Each is one exchange that the pool repeats by itself as long as Apple certainly did not act on it, until its deadline. An
answer that says something about the connection or the provider token alone is followed by one more try. All else is for the caller
to repeat; what ended as Unknown may have been carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar

from twisted.internet.interfaces import IReactorTime

from streampush.apns.answers import read_answer
from streampush.apns.apps import HOSTS, App, Apps, Route
from streampush.apns.broadcast import (
    MANAGEMENT_HOSTS,
    Broadcast,
    Channel,
    Request,
    Storage,
    broadcast_request,
    create_channel,
    created_channel,
    delete_channel,
    described_channel,
    list_channels,
    listed_channels,
    read_channel,
)
from streampush.apns.broadcast_exchange import Answer, Asking, request_block
from streampush.apns.client_figures import named
from streampush.apns.client_limits import ClientLimits
from streampush.apns.errors import BadPush
from streampush.apns.outcome import NotSent, Refused, Rejected, Unknown, Why
from streampush.apns.pool import Pool
from streampush.apns.ports import ApnsMetrics, NoMetrics
from streampush.apns.provider_token import ProviderToken
from streampush.apns.push import check_apns_id
from streampush.apns.reasons import Action, treatment
from streampush.apns.retry import read_retry_after

MAX_TRIES: Final = 2
"""Of one request that Apple answers: a new provider token or connection helps at once, or not at all."""


@dataclass(frozen=True, slots=True)
class Published:
    """Apple took the broadcast. `request_id`: Apple's name for it, or the one that was given; "" if none could be read."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Created:
    """There is a new channel."""

    channel_id: str


@dataclass(frozen=True, slots=True)
class Listed:
    """The ids of all channels of the app in its environment."""

    channel_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """The channel is no more."""

    channel_id: str


NotDone: TypeAlias = Rejected | NotSent | Refused | Unknown
"""What was asked for did not happen; after Unknown it may have. The words are those of pushes: outcome.py."""

Done = TypeVar("Done", Created, Listed, Channel, Deleted, Published)


def management_route(app: App) -> Route:
    """Where requests about the app's channels go: Apple has hosts of its own for them. A server in place of Apple's (`host` of the
    app) is asked for everything at one port, as `streampush apns-sim` is."""
    if app.route.host not in HOSTS.values():
        return app.route
    host, port = MANAGEMENT_HOSTS[app.route.host == HOSTS["sandbox"]]
    return replace(app.route, host=host, port=port)


class BroadcastSender:
    """Sends for the apps in force. `pool`: of a route, None if there is to be none any more. `wall`: Unix seconds.

    Each call ends by its `deadline`, in seconds of `clock`, with a value. All raise BadPush for what Apple would reject in any case
    and KeyError for an app that is not in force. Cancelling takes the request back; Apple may have acted on it by then.
    """

    def __init__(
        self,
        apps: Apps,
        pool: Callable[[Route], Pool | None],
        clock: IReactorTime,
        *,
        wall: Callable[[], float],
        metrics: ApnsMetrics | None = None,
    ) -> None:
        self._metrics: ApnsMetrics = metrics or NoMetrics()
        self._apps = apps
        self._pool = pool
        self._clock = clock
        self._wall = wall

    async def create(self, app: str, storage: Storage, *, deadline: float) -> Created | NotDone:
        """Makes a channel. After Unknown there may be one that nobody knows the id of: `list` tells."""
        request = create_channel(self._bundle_id(app), storage)
        answer = await self._ask(app, request, deadline)
        channel_id = created_channel(answer.status, answer.headers) if isinstance(answer, Answer) else None
        return self._ended(app, "create", answer, None if channel_id is None else Created(channel_id))

    async def list(self, app: str, *, deadline: float) -> Listed | NotDone:
        """All channels of the app; up to MAX_CHANNELS."""
        answer = await self._ask(app, list_channels(self._bundle_id(app)), deadline)
        channel_ids = listed_channels(answer.status, answer.body) if isinstance(answer, Answer) else None
        return self._ended(app, "list", answer, None if channel_ids is None else Listed(channel_ids))

    async def read(self, app: str, channel_id: str, *, deadline: float) -> Channel | NotDone:
        """What a channel is."""
        answer = await self._ask(app, read_channel(self._bundle_id(app), channel_id), deadline)
        found = described_channel(answer.status, channel_id, answer.body) if isinstance(answer, Answer) else None
        return self._ended(app, "read", answer, found)

    async def delete(self, app: str, channel_id: str, *, deadline: float) -> Deleted | NotDone:
        """Ends a channel. One that is none (any more) is Rejected with ChannelNotRegistered."""
        answer = await self._ask(app, delete_channel(self._bundle_id(app), channel_id), deadline)
        is_deleted = isinstance(answer, Answer) and answer.status == 204
        return self._ended(app, "delete", answer, Deleted(channel_id) if is_deleted else None)

    async def publish(self, app: str, broadcast: Broadcast, *, deadline: float) -> Published | NotDone:
        """One push to everybody who follows the channel. After Unknown they may have it."""
        request = broadcast_request(self._bundle_id(app), broadcast)
        answer = await self._ask(app, request, deadline, published=True)
        taken: Published | None = None
        if isinstance(answer, Answer) and answer.status == 200:
            taken = Published(_request_id(answer.headers.get("apns-request-id", "")))
        return self._ended(app, "publish", answer, taken)

    # ----------------------------------------------------------------------------------------------------------------- its work

    def _ended(self, app: str, request: str, answer: Answer | NotDone, done: Done | None) -> Done | NotDone:
        """What came of it, counted; `done`: what Apple's answer says that was done, None: it does not."""
        if done is not None:
            self._metrics.broadcast_ended(app, request, "done", "")
            return done
        not_done = self._not_done(answer) if isinstance(answer, Answer) else answer
        self._metrics.broadcast_ended(app, request, *named(not_done))
        return not_done

    def _bundle_id(self, app: str) -> str:
        return self._apps.all[app].settings.bundle_id

    async def _ask(self, app: str, request: Request, deadline: float, *, published: bool = False) -> Answer | NotDone:
        """An answer of Apple's, whatever it says, or why there is none."""
        tries = 0
        while True:
            tries += 1
            now = self._clock.seconds()
            in_force = self._apps.named(app)
            pool = None
            if in_force is not None:
                route = in_force.route if published else management_route(in_force)
                pool = self._pool(route)
            if in_force is None or pool is None:
                return NotSent(Why.STOPPING)
            token = self._apps.provider_token(in_force.route)
            bearer = b"" if token is None else token.bearer(now, self._wall())
            epoch = 0 if token is None else token.epoch
            exchange = Asking(request_block(request, route.authority, bearer), request.body, deadline, pool)
            pool.submit(exchange)
            answer = await exchange.ended
            if not isinstance(answer, Answer) or tries == MAX_TRIES or not self._another(exchange, answer, token, epoch):
                return answer

    def _another(self, exchange: Asking, answer: Answer, token: ProviderToken | None, epoch: int) -> bool:
        """Whether one more try has another chance; tells connection and token what the answer says of them."""
        rejected = self._not_done(answer)
        if 200 <= answer.status < 300 or not isinstance(rejected, Rejected):
            return False
        action, carrier = treatment(rejected.status, rejected.reason).action, exchange.carrier
        if action is Action.NEW_PROVIDER_TOKEN:
            return token is not None and token.expired(epoch, self._clock.seconds(), self._wall()) == 0.0
        if action is Action.REST_CONNECTION and carrier is not None:
            carrier.rest(ClientLimits().connection_rest)
        if action in (Action.RETRY, Action.NEW_CONNECTION) and carrier is not None:
            carrier.drain("an answer said that it is at its end")
            return True
        return False

    def _not_done(self, answer: Answer) -> Rejected | Unknown:
        """Of an answer that is not the good one."""
        retry_after = answer.headers.get("retry-after")
        seconds = None if retry_after is None else read_retry_after(retry_after, self._wall())
        outcome = Unknown(Why.BAD_ANSWER) if answer.status < 300 else read_answer(answer.status, answer.body, retry_after=seconds)
        return outcome if isinstance(outcome, Rejected) else Unknown(Why.BAD_ANSWER)


def _request_id(text: str) -> str:
    """As Apple answered it, if it looks like one."""
    try:
        check_apns_id(text, "request_id")
    except BadPush:
        return ""
    return text
