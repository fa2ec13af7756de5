"""Publishing over the framed protocol with the reference client and a publisher certificate."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from streampush.cli.exits import Failure
from streampush.cli.link import LARGEST_FRAMES, FirstConnection, explain_error, open_tls
from streampush.cli.outgoing import Outgoing, PublishRefused, Sent
from streampush.cli.target import Target
from streampush.client import Alert
from streampush.client.errors import ClientError, RequestRefused
from streampush.client.publishing import PublishOptions
from streampush.client.stream import REQUEST_TIMEOUT, StreamClient
from streampush.client.tls import ClientTls


class StreamPublisher:
    """Publishes over one connection, which is made with the first message."""

    answer_timeout = REQUEST_TIMEOUT

    def __init__(self, reactor: Any, host: str, port: int, tls: ClientTls) -> None:
        self._first = FirstConnection(host, port)
        self._client = StreamClient(
            reactor, [(host, port)], tls, on_event=self._first.event, app="streampush", settings=LARGEST_FRAMES
        )
        self._started = False

    @classmethod
    def of_target(cls, reactor: Any, target: Target, name: str) -> StreamPublisher:
        """As the publisher `name` of the directory. Raises BadCredentials."""
        return cls(reactor, target.host, target.port, open_tls(target, target.files.publisher(name)))

    async def publish(self, message: Outgoing) -> Sent:
        if not self._started:
            self._started = True
            self._client.start()
        limit = (await self._first.welcome()).limits.max_payload
        if limit and len(message.payload) > limit:
            raise Failure(f"the payload is {len(message.payload)} bytes, the server takes at most {limit}")
        try:
            reply = await self._client.publish(message.channel, message.payload, **_options(message))
        except RequestRefused as error:
            raise PublishRefused(error.code, error.advice, error.detail, error.retry_after) from error
        except ClientError as error:
            raise explain_error(error) from error
        return Sent(
            reply.message_id,
            reply.channel,
            reply.offset,
            reply.connections,
            reply.duplicate,
            reply.superseded,
            reply.deliver_at_ms,
            reply.epoch,
            reply.durability.name,
        )

    async def close(self) -> None:
        if self._started:
            await self._client.stop()


def _options(message: Outgoing) -> PublishOptions:
    """What the client is told; without a key of the user's it makes one of its own."""
    options = PublishOptions(
        content_type=message.content_type,
        headers=message.headers,
        ttl=message.ttl,
        expires_at=message.expires_at_ms / 1000,
        deliver_at=message.deliver_at_ms / 1000,
        priority=message.priority,
        collapse_key=message.collapse_key,
        version=message.version,
        want_receipt=message.want_receipt,
        clear_on_processed=message.clear_on_processed,
    )
    if message.idempotency_key:
        options["idempotency_key"] = message.idempotency_key
    if message.alert is not None:
        options["alert"] = Alert(**asdict(message.alert))
    return options
