"""Publishing once and only once, over connections that come and go: docs/protocol.md sections 5.5 and 10.3."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from secrets import token_urlsafe
from typing import TypedDict

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from streampush.client.errors import ClientStopped, ConnectionLost, NotConnected, TooManyRequests
from streampush.protocol.messages import Alert, Publish, PublishOk, Welcome
from streampush.protocol.terms import Durability, Priority


class PublishOptions(TypedDict, total=False):
    """What may be said of a publication beside channel and payload. Times are Unix time in seconds.

    `ttl`: seconds from when it is due, or `expires_at`; without either it stays as long as the log keeps it. `durability`: the
    least that is wanted. `priority` never changes the order within a channel. `collapse_key`: takes the place of earlier ones
    with the key. `deliver_at`: not before. `want_receipt`: the client hears ReceiptArrived if it was made with `receipts`.
    `clear_on_processed`: to a user; processed by one device, it is recalled for the others. `version`: stored only if it is above
    the newest of the channel and collapse key. `alert`: what devices that are away are sent over their push service.
    `idempotency_key`: a random one unless given; empty for none.
    """

    content_type: str
    headers: Mapping[str, str]
    ttl: float
    expires_at: float
    durability: Durability
    priority: Priority
    collapse_key: str
    deliver_at: float
    want_receipt: bool
    clear_on_processed: bool
    version: int
    alert: Alert
    idempotency_key: str


def publish_request(channel: str, payload: bytes, options: PublishOptions) -> Publish:
    """The message for a publication; with a random idempotency key if the options have none."""
    key = options.get("idempotency_key")
    return Publish(
        channel,
        payload,
        options.get("content_type", ""),
        dict(options.get("headers", {})),
        _ms(options.get("ttl", 0.0)),
        options.get("durability", Durability.UNSPECIFIED),
        token_urlsafe(16) if key is None else key,
        options.get("priority", Priority.UNSPECIFIED),
        options.get("collapse_key", ""),
        _ms(options.get("deliver_at", 0.0)),
        options.get("want_receipt", False),
        options.get("clear_on_processed", False),
        options.get("version", 0),
        _ms(options.get("expires_at", 0.0)),
        options.get("alert"),
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


async def publish(
    clock: IReactorTime,
    request: Publish,
    timeout: float,
    ask: Callable[[Publish, float], Awaitable[PublishOk]],
    connected: Callable[[], Awaitable[Welcome]],
) -> PublishOk:
    """Asks until there is an answer: if the connection is lost, the same again on the next one, all within `timeout` seconds.

    Without an idempotency key it asks once. Raises what `ask` does, and ConnectionLost when no other connection came in time.
    """
    deadline = clock.seconds() + timeout
    lost: ConnectionLost | None = None
    while True:
        try:
            return await ask(request, max(0.0, deadline - clock.seconds()))
        except ConnectionLost as error:
            lost = error
            if not request.idempotency_key:
                raise
        except (NotConnected, TooManyRequests) as error:
            if lost is None:
                raise
            if isinstance(error, TooManyRequests):
                raise lost from None  # it may be stored: what happened first tells more
        await _wait(clock, connected, deadline - clock.seconds(), lost)


async def _wait(clock: IReactorTime, connected: Callable[[], Awaitable[Welcome]], seconds: float, lost: ConnectionLost) -> None:
    """For the next connection. Raises `lost` if none comes in time."""

    async def connect() -> None:
        await connected()

    waiting = Deferred.fromCoroutine(connect())
    waiting.addTimeout(max(0.0, seconds), clock)
    try:
        await waiting
    except (TimeoutError, ClientStopped):
        raise lost from None
