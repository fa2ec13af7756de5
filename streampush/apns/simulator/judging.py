"""Who may push what to whom: the checks of `validation` that need memory, and the order of all of them."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import Enum
from hashlib import sha256
from random import Random
from typing import Final

from streampush.apns.simulator.accounts import Devices, Environment, SigningKey, token_hash
from streampush.apns.simulator.broadcasts import Channels, Done, Kind, find_call, kind_of
from streampush.apns.simulator.provider_tokens import CLOCK_LEEWAY, MIN_TOKEN_INTERVAL, ProviderToken, TokenCheck, TokenUpdates
from streampush.apns.simulator.reasons import Reason
from streampush.apns.simulator.validation import (
    Push,
    Request,
    check_device,
    check_form,
    check_topic,
    find_apns_id,
    find_device_token,
)

_DEVICES_COUNTED: Final = 100_000  # devices whose rate is known; the one that was quiet longest is forgotten


class UpdateScope(Enum):
    """Over what new provider tokens are counted against `Validation.min_token_interval`."""

    ACCOUNT = "account"
    """All connections together. Stricter than Apple, so that a client shows that its connections share one token."""
    CONNECTION = "connection"
    """Each connection by itself, as Apple's page has it; a client that is started again is not punished for its new token."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What is right and what is not.

    `keys`: whose provider tokens are good. `topics`: bundle ids that exist; none: all. `min_token_interval`: seconds between two
    new provider tokens, 0: any time. `per_device`: pushes to one device in `per_device_interval` seconds, 0: no limit.
    `leeway`: seconds that a token's `iat` may lie in the future. `send_date`: answers have a `date` header.
    """

    keys: tuple[SigningKey, ...] = ()
    topics: frozenset[str] = frozenset()
    environment: Environment = Environment.SANDBOX
    min_token_interval: float = MIN_TOKEN_INTERVAL
    update_scope: UpdateScope = UpdateScope.ACCOUNT
    per_device: int = 0
    per_device_interval: float = 1.0
    leeway: float = CLOCK_LEEWAY
    send_date: bool = False


@dataclass(slots=True)
class Provider:
    """Who is at the other end of a connection. `key`: the one that its first good token was signed with.

    `topics`: the bundle ids of its certificate; with it no token is needed.
    """

    updates: TokenUpdates
    topics: tuple[str, ...] = ()
    key: SigningKey | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a request is answered with. `reason` None: accepted. `timestamp_ms`: with 410, since when the token is inactive.

    `authorised`: the provider was allowed to ask, whatever became of its push. `done`: what became of a request about broadcast
    channels; its id is the `apns-request-id`. `target`: the device token or channel id.
    """

    apns_id: str
    reason: Reason | None = None
    timestamp_ms: int | None = None
    retry_after: int | None = None
    authorised: bool = True
    push: Push | None = field(default=None, repr=False)
    done: Done | None = None
    kind: Kind = Kind.PUSH
    target: str = field(default="", repr=False)

    @property
    def status(self) -> int:
        """The `:status`."""
        if self.reason is not None:
            return self.reason.status
        return self.done.status if self.done is not None else 200


class Judge:
    """Decides on requests. `wall_offset`: seconds to add to `now` to get the wall time."""

    __slots__ = ("_channels", "_devices", "_ids", "_recent", "_tokens", "_updates", "_validation", "_wall_offset")

    def __init__(
        self,
        validation: Validation,
        devices: Devices,
        channels: Channels | None = None,
        *,
        wall_offset: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._validation = validation
        self._devices = devices
        self._channels = channels if channels is not None else Channels(seed)
        self._wall_offset = wall_offset
        self._tokens = TokenCheck(validation.keys, leeway=validation.leeway)
        self._updates = TokenUpdates(validation.min_token_interval)
        self._recent: OrderedDict[str, tuple[float, int]] = OrderedDict()  # by token hash: begin of the interval, pushes in it
        self._ids = Random(f"{seed} apns-id")  # noqa: S311  # must come again with the seed

    def meet(self, certificate_topics: tuple[str, ...] = ()) -> Provider:
        """A provider that has just connected."""
        if self._validation.update_scope is UpdateScope.ACCOUNT:
            return Provider(self._updates, certificate_topics)
        return Provider(TokenUpdates(self._validation.min_token_interval), certificate_topics)

    def judge(self, request: Request, provider: Provider, now: float) -> Verdict:
        """The answer to a request, in the order of `validation`."""
        kind = kind_of(request.get(b":path") or b"")
        if kind is not Kind.PUSH:
            return self._judge_broadcast(kind, request, provider, now)
        apns_id = self._apns_id(request, b"apns-id")
        device_token = find_device_token(request)
        if isinstance(device_token, Reason):
            return Verdict(apns_id, device_token, authorised=False)
        refusal = self._authorise(request, provider, now)
        if refusal is not None:
            return Verdict(apns_id, refusal, authorised=False, target=device_token)
        push = check_form(request, device_token, provider.topics[0] if len(provider.topics) == 1 else "")
        if isinstance(push, Reason):
            return Verdict(apns_id, push, target=device_token)
        state = self._devices.state(device_token)
        reason = self._check_topic(push, provider) or check_device(push, state, self._validation.environment)
        if reason is None and self._too_many(device_token, now):
            reason = Reason.TOO_MANY_REQUESTS
        timestamp_ms = None
        if state is not None and state.inactive_since is not None and reason in (Reason.UNREGISTERED, Reason.EXPIRED_TOKEN):
            timestamp_ms = int(state.inactive_since * 1000)
        return Verdict(apns_id, reason, timestamp_ms, push=push, target=device_token)

    def reject(self, reason: Reason, request: Request, ago: float, retry_after: int | None, now: float) -> Verdict:
        """A rejection on order. `ago`: with 410, how many seconds before now the device token became inactive."""
        timestamp_ms = int((now + self._wall_offset - ago) * 1000) if reason.status == 410 else None
        path = request.get(b":path") or b""
        kind = kind_of(path)
        apns_id = self._apns_id(request, b"apns-id" if kind is Kind.PUSH else b"apns-request-id")
        target = path.rpartition(b"/")[2] if kind is Kind.PUSH else request.get(b"apns-channel-id") or b""
        return Verdict(apns_id, reason, timestamp_ms, retry_after, kind=kind, target=target.decode("latin-1"))

    def unique_id(self, apns_id: str) -> str:
        """The `apns-unique-id`, which only the sandbox gives; else empty."""
        if self._validation.environment is not Environment.SANDBOX:
            return ""
        digits = sha256(apns_id.encode()).hexdigest()
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"

    def date(self, now: float) -> str:
        """The `date` of an answer by Apple's clock, if answers have one; else empty."""
        return formatdate(now + self._wall_offset, usegmt=True) if self._validation.send_date else ""

    def _judge_broadcast(self, kind: Kind, request: Request, provider: Provider, now: float) -> Verdict:
        request_id = self._apns_id(request, b"apns-request-id")
        target = (request.get(b"apns-channel-id") or b"").decode("latin-1")
        found = find_call(request)
        if isinstance(found, Reason):
            return Verdict(request_id, found, authorised=False, kind=kind, target=target)
        refusal = self._authorise(request, provider, now)
        if refusal is not None:
            return Verdict(request_id, refusal, authorised=False, kind=kind, target=target)
        call, bundle_id = found
        if find_apns_id(request, b"apns-request-id") is None:
            return Verdict(request_id, Reason.BAD_MESSAGE_ID, kind=kind, target=target)
        done = self._check_topic(Push(target, bundle_id), provider) or self._channels.carry_out(call, bundle_id, request)
        if isinstance(done, Reason):
            return Verdict(request_id, done, kind=kind, target=target)
        return Verdict(request_id, push=done.push, done=done, kind=kind, target=done.channel_id or target)

    def _apns_id(self, request: Request, name: bytes) -> str:
        return find_apns_id(request, name) or str(uuid.UUID(int=self._ids.getrandbits(128), version=4))

    def _authorise(self, request: Request, provider: Provider, now: float) -> Reason | None:
        authorization = request.get(b"authorization")
        if authorization is None and provider.topics:
            return None
        token = self._tokens.check(authorization, now + self._wall_offset)
        if isinstance(token, Reason):
            return token
        reason = self._check_key(token, provider.key)
        if reason is None and not provider.updates.admit(token, now):
            reason = Reason.TOO_MANY_PROVIDER_TOKEN_UPDATES
        if reason is None and provider.key is None:
            provider.key = token.key
        return reason

    def _check_key(self, token: ProviderToken, bound: SigningKey | None) -> Reason | None:
        if self._validation.environment not in token.key.environments:
            return Reason.BAD_ENVIRONMENT_KEY_ID_IN_TOKEN
        if bound is None or token.key.key_id == bound.key_id:
            return None
        # A connection is one team's. Another key of that team is refused too, as if it were not related to the first one.
        return Reason.UNRELATED_KEY_ID_IN_TOKEN if token.key.team_id == bound.team_id else Reason.INVALID_PROVIDER_TOKEN

    def _check_topic(self, push: Push, provider: Provider) -> Reason | None:
        for topics in (self._validation.topics, frozenset(provider.topics)):
            reason = check_topic(push, provider.key, topics)
            if reason is not None:
                return reason
        return None

    def _too_many(self, device_token: str, now: float) -> bool:
        most = self._validation.per_device
        if not most:
            return False
        key = token_hash(device_token)
        begin, count = self._recent.pop(key, (now, 0))
        if now - begin >= self._validation.per_device_interval:
            begin, count = now, 0
        self._recent[key] = (begin, min(count + 1, most + 1))
        if len(self._recent) > _DEVICES_COUNTED:
            self._recent.popitem(last=False)
        return count >= most
