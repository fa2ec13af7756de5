"""Publishing: validate, authorise, limit the rate, store, then fan out. The publisher is told when the store has it."""

from __future__ import annotations

from collections.abc import Callable

from streampush.config import PublishConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Priority
from streampush.push.alerts import canonical
from streampush.push.channels import Kind, allowed, kind_of
from streampush.push.fanout import FanOut
from streampush.push.limits import Level
from streampush.push.ports import PushMetrics
from streampush.push.publish_rules import check_fields, expiry_ms, fingerprint
from streampush.push.rates import Rates
from streampush.push.store_ports import Store
from streampush.push.values import Accepted, Draft, Idempotency, Principal, Published, PublishRequest


class Publishing:
    """The one way by which a message enters, whoever brings it, and the rates of who asks for something else.

    `clock` gives monotonic seconds, `wall_ms` Unix milliseconds, `new_id` a message id for a time in Unix milliseconds.
    `scheduled` is told when a message waits for a time, `falls_back` when there is one with an alert to follow up, Unix
    milliseconds; without `falls_back` nobody does that, and alerts are checked but not kept.
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
        scheduled: Callable[[int], None],
        falls_back: Callable[[int], None],
        rates: Rates,
        keeps_alerts: Callable[[], bool],
    ) -> None:
        self._store = store
        self._fanout = fanout
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._wall_ms = wall_ms
        self._new_id = new_id
        self._scheduled = scheduled
        self._falls_back = falls_back
        self._keeps_alerts = keeps_alerts
        self._rates = rates

    async def publish(self, principal: Principal, request: PublishRequest) -> Published:
        """Stores the message and lets it be delivered. Raises Refused; then nothing was stored.

        A request with a known idempotency key gets the first answer, whatever has expired since; its rate is charged all the same.
        """
        accepted_at = self._clock()
        publisher = f"{principal.kind}:{principal.name}"
        idempotency = None
        try:
            alert = self._admit(principal, request, accepted_at)
            if self._rates.is_shared(principal):
                await self._take_shared(principal, request.channel)
            now_ms = self._wall_ms()
            if request.idempotency_key:
                idempotency = self._idempotency(publisher, request, alert, now_ms)
            try:
                expires_at_ms = expiry_ms(request, self._limits, now_ms)
            except Refused:  # now; but not, perhaps, when it was sent for the first time
                first = await self._store.first_answer(idempotency) if idempotency is not None else None
                if first is None:
                    raise
                accepted = first
            else:
                accepted = await self._store.append(self._draft(publisher, request, alert, now_ms, expires_at_ms, idempotency))
        except Refused as refused:
            self._metrics.refused(refused.code)
            raise
        return self._told(principal, request, accepted, accepted_at)

    def permit(self, principal: Principal, channel: str) -> Kind:
        """The kind of a channel that the principal may publish to. Raises Refused: UNKNOWN_RECIPIENT, FORBIDDEN."""
        kind, _ = kind_of(channel)
        if kind is Kind.INTERNAL and principal.kind != "probe":
            raise Refused(Code.FORBIDDEN, "names that begin with $ are the server's own", channel=channel)
        if not allowed(principal.may_publish, principal, channel):
            raise Refused(Code.FORBIDDEN, f"{principal.kind} {principal.name} may not publish here", channel=channel)
        return kind

    async def charge(self, principal: Principal, channel: str, now: float) -> None:
        """One message of a publisher, or request of a device. Raises Refused(MESSAGE_RATE_EXCEEDED)."""
        self._take(principal, now, channel)
        if self._rates.is_shared(principal):
            await self._take_shared(principal, channel)

    async def device_level(self, device_id: str) -> Level:
        """What is left of a device's request rate: see rates.Rates.device_level."""
        return await self._rates.device_level(device_id, self._clock())

    def _take(self, principal: Principal, now: float, channel: str) -> None:
        wait = self._rates.take(principal, now)
        if wait:
            raise Refused(Code.MESSAGE_RATE_EXCEEDED, channel=channel, retry_after=wait)

    async def _take_shared(self, principal: Principal, channel: str) -> None:
        wait = await self._rates.take_shared(principal)
        if wait:
            raise Refused(Code.MESSAGE_RATE_EXCEEDED, channel=channel, retry_after=wait)

    def _admit(self, principal: Principal, request: PublishRequest, now: float) -> bytes:
        """Gives the canonical form of the request's alert, empty if it has none."""
        kind = self.permit(principal, request.channel)
        self._take(principal, now, request.channel)
        check_fields(request, kind, self._limits)
        alert = b"" if request.alert is None else canonical(request.alert, request.channel)
        if request.durability > self._store.durability:
            detail = f"durability {request.durability.name} is wanted, the store gives {self._store.durability.name}"
            raise Refused(Code.FORBIDDEN, detail, channel=request.channel)
        return alert

    def _idempotency(self, publisher: str, request: PublishRequest, alert: bytes, now_ms: int) -> Idempotency:
        forgotten_at_ms = now_ms + int(self._limits.idempotency_window * 1000)
        return Idempotency(publisher, request.idempotency_key, fingerprint(request, alert), forgotten_at_ms)

    def _draft(
        self,
        publisher: str,
        request: PublishRequest,
        alert: bytes,
        now_ms: int,
        expires_at_ms: int,
        idempotency: Idempotency | None,
    ) -> Draft:
        return Draft(
            request.channel,
            self._new_id(now_ms),
            request.payload,
            now_ms,
            expires_at_ms,
            request.content_type,
            request.headers,
            request.priority or Priority.NORMAL,
            request.collapse_key,
            request.version,
            request.deliver_at_ms,
            request.want_receipt,
            request.clear_on_processed,
            publisher,
            idempotency,
            alert if self._keeps_alerts() else b"",
        )

    def _told(self, principal: Principal, request: PublishRequest, accepted: Accepted, accepted_at: float) -> Published:
        """Lets what is new go out, counts, and answers."""
        if accepted.appended is not None:
            connections = self._fanout.appended(accepted.appended, accepted_at)
        else:
            connections = self._fanout.followers(accepted.channel)
        if accepted.duplicate:
            self._metrics.not_published("duplicate")
        elif accepted.superseded:
            self._metrics.not_published("superseded")
        else:
            self._metrics.published(principal.kind, len(request.payload))
            if accepted.deliver_at_ms:
                self._scheduled(accepted.deliver_at_ms)
            elif request.alert is not None:
                self._falls_back(self._wall_ms())
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
