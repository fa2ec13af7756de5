"""Publishing: validate, authorise, limit the rate, store, then fan out. The publisher is told when the store has it."""

from __future__ import annotations

import re
from collections.abc import Callable

from streampush.config import PublishConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.channels import Kind, allowed, kind_of
from streampush.push.fanout import FanOut
from streampush.push.limits import KeyedBuckets
from streampush.push.ports import PushMetrics, Store
from streampush.push.values import Draft, Principal, Published, PublishRequest

MAX_CONTENT_TYPE_BYTES = 128

_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Half a character, as JSON may hold; no frame can carry it."""


class Publishing:
    """The one way by which a message enters, whoever brings it.

    `clock` gives monotonic seconds, `wall_ms` Unix milliseconds, `new_id` a message id for a time in Unix milliseconds.
    """

    def __init__(
        self,
        store: Store,
        fanout: FanOut,
        limits: PublishConfig,
        metrics: PushMetrics,
        *,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        new_id: Callable[[int], str],
    ) -> None:
        self._store = store
        self._fanout = fanout
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._wall_ms = wall_ms
        self._new_id = new_id
        self._publisher_rates = KeyedBuckets(limits.publisher_rate, limits.publisher_burst)
        self._device_rates = KeyedBuckets(limits.device_rate, limits.device_burst)

    async def publish(self, principal: Principal, request: PublishRequest) -> Published:
        """Stores the message and lets it be delivered. Raises Refused; then nothing was stored."""
        accepted_at = self._clock()
        try:
            self._admit(principal, request, accepted_at)
            accepted = await self._store.append(self._draft(principal, request))
        except Refused as refused:
            self._metrics.refused(refused.code)
            raise
        if accepted.appended is None:
            connections = self._fanout.followers(accepted.channel)
        else:
            connections = self._fanout.appended(accepted.appended, accepted_at)
            self._metrics.published(principal.kind, len(request.payload))
        return Published(
            accepted.message_id,
            accepted.channel,
            accepted.offset,
            accepted.epoch,
            accepted.durability,
            connections,
            accepted.duplicate,
            accepted.superseded,
            accepted.deliver_at_ms,
        )

    def charge_device(self, principal: Principal) -> None:
        """One request of a device other than publish. Raises Refused(MESSAGE_RATE_EXCEEDED)."""
        self._take(self._device_rates, principal, self._clock(), "")

    def _take(self, rates: KeyedBuckets, principal: Principal, now: float, channel: str) -> None:
        wait = rates.take(f"{principal.kind}:{principal.name}", now)
        if wait:
            raise Refused(Code.MESSAGE_RATE_EXCEEDED, channel=channel, retry_after=wait)

    def _admit(self, principal: Principal, request: PublishRequest, now: float) -> None:
        kind, _ = kind_of(request.channel)
        if kind is Kind.INTERNAL and principal.kind != "probe":
            raise Refused(Code.FORBIDDEN, "names that begin with $ are the server's own", channel=request.channel)
        if not allowed(principal.may_publish, principal, request.channel):
            raise Refused(Code.FORBIDDEN, f"{principal.kind} {principal.name} may not publish here", channel=request.channel)
        rates = self._device_rates if principal.kind == "device" else self._publisher_rates
        self._take(rates, principal, now, request.channel)
        self._check_sizes(request)
        self._check_ttl(request)
        if request.durability > self._store.durability:
            detail = f"durability {request.durability.name} is wanted, the store gives {self._store.durability.name}"
            raise Refused(Code.FORBIDDEN, detail, channel=request.channel)

    def _check_sizes(self, request: PublishRequest) -> None:
        limits = self._limits
        channel = request.channel
        texts = [request.content_type, *request.headers.keys(), *request.headers.values()]
        if any(map(_SURROGATE.search, texts)):
            raise Refused(Code.SERIALIZATION_ERROR, "content type and headers must be Unicode text", channel=channel)
        if len(request.payload) > limits.max_payload:
            detail = f"payload of {len(request.payload)} bytes, the limit is {limits.max_payload}"
            raise Refused(Code.PAYLOAD_TOO_LARGE, detail, channel=channel)
        size = sum(len(key.encode()) + len(value.encode()) for key, value in request.headers.items())
        if len(request.headers) > limits.max_headers or size > limits.max_headers_bytes:
            detail = f"{len(request.headers)} headers of {size} bytes, the limits are {limits.max_headers} and "
            raise Refused(Code.PAYLOAD_TOO_LARGE, f"{detail}{limits.max_headers_bytes}", channel=channel)
        if len(request.content_type.encode()) > MAX_CONTENT_TYPE_BYTES:
            detail = f"content type above {MAX_CONTENT_TYPE_BYTES} bytes"
            raise Refused(Code.PAYLOAD_TOO_LARGE, detail, channel=channel)

    def _check_ttl(self, request: PublishRequest) -> None:
        limits = self._limits
        channel = request.channel
        if not request.ttl >= 0:  # also "not a number"
            raise Refused(Code.MESSAGE_EXPIRED, "ttl is negative or not a number: expired on arrival", channel=channel)
        if request.ttl > limits.max_ttl:
            detail = f"ttl of {request.ttl:.0f} s, the limit is {limits.max_ttl:.0f} s (publish.max_ttl)"
            raise Refused(Code.MESSAGE_EXPIRED, detail, channel=channel)

    def _draft(self, principal: Principal, request: PublishRequest) -> Draft:
        now_ms = self._wall_ms()
        return Draft(
            channel=request.channel,
            message_id=self._new_id(now_ms),
            payload=request.payload,
            published_at_ms=now_ms,
            expires_at_ms=now_ms + max(1, int(request.ttl * 1000)) if request.ttl else 0,
            content_type=request.content_type,
            headers=request.headers,
            publisher=f"{principal.kind}:{principal.name}",
        )
