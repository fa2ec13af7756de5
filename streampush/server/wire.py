"""Between the values of `push/` and the messages of the wire."""

from __future__ import annotations

from streampush.config import Config
from streampush.errors import Refused
from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.codes import CODES
from streampush.protocol.framing import encode_frame
from streampush.push.channels import MAX_NAME_BYTES
from streampush.push.values import (
    Alert,
    Position,
    Publication,
    Published,
    PublishRequest,
    SubscribeRequest,
    Subscription,
    SubscriptionRefused,
)

MAX_PEER_TEXT = 200
"""Characters that are kept of a sentence of the peer's: it is remembered, shown and logged."""


def peer_text(text: str) -> str:
    """What a peer wrote for people, short and without characters that could forge a line or steer a terminal."""
    short = text[:MAX_PEER_TEXT]
    return short if short.isprintable() else "".join(char if char.isprintable() else "?" for char in short)


def encode_delivery(publication: Publication) -> bytes:
    """The delivery frame of a publication: the same bytes for every follower."""
    message = m.Delivery(
        publication.channel,
        publication.offset,
        publication.message_id,
        publication.payload,
        publication.published_at_ms,
        publication.expires_at_ms,
        publication.content_type,
        dict(publication.headers),
        publication.recalls,
        publication.collapse_key,
        publication.priority,
    )
    return encode_frame(codec.encode(message))


def subscribed(result: Subscription | SubscriptionRefused) -> m.Subscribed:
    if isinstance(result, SubscriptionRefused):
        return m.Subscribed(result.channel, code=result.code, detail=result.detail)
    return m.Subscribed(
        result.channel,
        result.epoch,
        result.offset,
        result.top_offset,
        result.recovered,
        result.loss,
        result.lost_at_most,
        last_message_id=result.message_id,
        durable=result.durable,
    )


def subscribe_request(message: m.Subscribe | m.Resume) -> SubscribeRequest:
    """A position without an epoch is none: docs/protocol.md section 11.1."""
    position = None
    if message.position is not None and message.position.epoch:
        position = Position(message.position.epoch, message.position.offset, message.position.last_message_id)
    if isinstance(message, m.Resume):
        return SubscribeRequest(message.channel, position)
    return SubscribeRequest(message.channel, position, message.start, message.durable)


def publish_request(message: m.Publish) -> PublishRequest:
    return PublishRequest(
        message.channel,
        message.payload,
        message.content_type,
        message.headers,
        message.ttl_ms / 1000,
        message.durability,
        message.expires_at_ms,
        message.idempotency_key,
        message.priority,
        message.collapse_key,
        message.deliver_at_ms,
        message.want_receipt,
        message.clear_on_processed,
        message.version,
        None if message.alert is None else _alert(message.alert),
    )


def _alert(message: m.Alert) -> Alert:
    return Alert(
        message.title,
        message.subtitle,
        message.body,
        message.badge,
        message.sound,
        message.category,
        message.thread_id,
        message.mutable_content,
        message.interruption_level,
        message.relevance_score,
        message.custom,
        message.background,
        message.fallback_after_ms,
        message.only_when_away,
    )


def publish_ok(published: Published) -> m.PublishOk:
    return m.PublishOk(
        published.message_id,
        published.channel,
        published.offset,
        published.epoch,
        published.durability,
        published.connections,
        published.duplicate,
        published.deliver_at_ms,
        published.superseded,
    )


def error_of(refused: Refused) -> m.Error:
    """A name that no channel can have is not repeated: the answer to a frame just below the limit would not fit one."""
    channel = refused.channel if len(refused.channel.encode()) <= MAX_NAME_BYTES else ""
    return m.Error(
        refused.code,
        CODES[refused.code].advice,
        refused.detail,
        retry_after_ms=-(-int(refused.retry_after * 1_000_000) // 1000),
        channel=channel,
    )


def heartbeat_policy(config: Config) -> m.HeartbeatPolicy:
    beat = config.heartbeat
    return m.HeartbeatPolicy(
        int(beat.interval * 1000), int(beat.reply_timeout * 1000), beat.misses, int(beat.min_ping_interval * 1000)
    )


def reconnect_policy(config: Config) -> m.ReconnectPolicy:
    policy = config.reconnect
    return m.ReconnectPolicy(
        int(policy.first_jitter * 1000),
        int(policy.backoff_initial * 1000),
        int(policy.backoff_max * 1000),
        policy.degraded_after,
    )


def limits(config: Config, window_messages: int, window_bytes: int) -> m.Limits:
    return m.Limits(
        config.session.max_frame,
        config.publish.max_payload,
        config.delivery.max_subscriptions,
        window_messages,
        window_bytes,
        int(config.delivery.ack_timeout * 1000),
    )
