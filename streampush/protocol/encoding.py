"""Messages to payload bytes: one half of `codec`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streampush._pb import streampush_pb2 as pb
from streampush.protocol import messages as m
from streampush.protocol.errors import LocalProtocolError


def _set_position(target: pb.Position, position: m.Position) -> None:
    target.epoch = position.epoch
    target.offset = position.offset
    target.last_message_id = position.last_message_id


def _set_subscribed(target: pb.Subscribed, message: m.Subscribed) -> None:
    _copy(target, message, "channel epoch offset top_offset recovered loss lost_at_most code detail last_message_id durable")


def _copy(target: Any, source: Any, names: str) -> None:
    for name in names.split():
        setattr(target, name, getattr(source, name))


def _set_alert(target: pb.Alert, alert: m.Alert) -> None:
    target.SetInParent()
    _copy(target, alert, _ALERT_FIELDS)
    if alert.badge is not None:
        target.badge = alert.badge
    if alert.relevance_score is not None:
        target.relevance_score = alert.relevance_score


_ALERT_FIELDS = (
    "title subtitle body sound category thread_id mutable_content interruption_level custom background fallback_after_ms"
    " only_when_away"
)
_NO_POSITION = m.Position()


def _encode_hello(env: pb.Envelope, message: m.Hello) -> None:
    body = env.hello
    body.SetInParent()
    _copy(body, message, "protocol_min protocol_max features app app_version sdk sdk_version device_id")
    _copy(body, message, "receive_window_messages receive_window_bytes state")
    for resume in message.resume:
        row = body.resume.add(channel=resume.channel)
        if resume.position != _NO_POSITION:
            _set_position(row.position, resume.position)


def _encode_welcome(env: pb.Envelope, message: m.Welcome) -> None:
    body = env.welcome
    body.SetInParent()
    _copy(body, message, "protocol features session_id node device_id user_id server_time_ms")
    _copy(body.heartbeat, message.heartbeat, "interval_ms reply_timeout_ms misses min_ping_interval_ms")
    limits = "max_frame max_payload max_subscriptions receive_window_messages receive_window_bytes ack_timeout_ms"
    _copy(body.limits, message.limits, limits)
    _copy(body.reconnect, message.reconnect, "first_jitter_ms backoff_initial_ms backoff_max_ms degraded_after")
    for subscribed in message.subscribed:
        _set_subscribed(body.subscribed.add(), subscribed)


def _encode_subscribe(env: pb.Envelope, message: m.Subscribe) -> None:
    body = env.subscribe
    body.SetInParent()
    _copy(body, message, "channel start durable")
    if message.position is not None:
        body.position.SetInParent()
        _set_position(body.position, message.position)


# The four messages below are most of the traffic; attributes are set one by one because a loop over names costs twice as much,
# and those that are seldom used only if they are.


def _encode_delivery(env: pb.Envelope, message: m.Delivery) -> None:
    body = env.delivery
    body.channel = message.channel
    body.offset = message.offset
    body.message_id = message.message_id
    body.payload = message.payload
    body.published_at_ms = message.published_at_ms
    if message.expires_at_ms:
        body.expires_at_ms = message.expires_at_ms
    if message.content_type:
        body.content_type = message.content_type
    if message.headers:
        body.headers.update(message.headers)
    if message.recalls:
        body.recalls = message.recalls
    if message.collapse_key:
        body.collapse_key = message.collapse_key
    if message.priority:
        body.priority = message.priority  # type: ignore[assignment]  # the stubs know no IntEnum


def _encode_ack(env: pb.Envelope, message: m.Ack) -> None:
    body = env.ack
    body.channel = message.channel
    body.offset = message.offset
    body.outcome = message.outcome  # type: ignore[assignment]  # as above
    if message.epoch:
        body.epoch = message.epoch


def _encode_publish(env: pb.Envelope, message: m.Publish) -> None:
    body = env.publish
    body.channel = message.channel
    body.payload = message.payload
    body.content_type = message.content_type
    body.ttl_ms = message.ttl_ms
    body.durability = message.durability  # type: ignore[assignment]  # as above
    if message.headers:
        body.headers.update(message.headers)
    if message.idempotency_key:
        body.idempotency_key = message.idempotency_key
    if message.priority:
        body.priority = message.priority  # type: ignore[assignment]  # as above
    if message.collapse_key:
        body.collapse_key = message.collapse_key
    if message.deliver_at_ms:
        body.deliver_at_ms = message.deliver_at_ms
    if message.want_receipt:
        body.want_receipt = True
    if message.clear_on_processed:
        body.clear_on_processed = True
    if message.version:
        body.version = message.version
    if message.expires_at_ms:
        body.expires_at_ms = message.expires_at_ms
    if message.alert is not None:
        _set_alert(body.alert, message.alert)


def _encode_publish_ok(env: pb.Envelope, message: m.PublishOk) -> None:
    body = env.publish_ok
    body.message_id = message.message_id
    body.channel = message.channel
    body.offset = message.offset
    body.epoch = message.epoch
    body.durability = message.durability  # type: ignore[assignment]  # as above
    body.connections = message.connections
    if message.duplicate:
        body.duplicate = True
    if message.deliver_at_ms:
        body.deliver_at_ms = message.deliver_at_ms
    if message.superseded:
        body.superseded = True


def _flat(field: str, names: str) -> Callable[[pb.Envelope, Any], None]:
    """An encoder for a message whose fields are all scalars of the same names."""

    def encode_flat(env: pb.Envelope, message: Any) -> None:
        body = getattr(env, field)
        body.SetInParent()
        _copy(body, message, names)

    return encode_flat


_ENCODERS: dict[type, Callable[[pb.Envelope, Any], None]] = {
    m.Delivery: _encode_delivery,
    m.Ack: _encode_ack,
    m.Ping: _flat("ping", ""),
    m.Pong: _flat("pong", ""),
    m.Publish: _encode_publish,
    m.PublishOk: _encode_publish_ok,
    m.Credit: _flat("credit", "messages bytes"),
    m.BacklogEnd: _flat("backlog_end", "channel offset"),
    m.Receipt: _flat("receipt", "message_id channel offset device_id milestone at_ms"),
    m.Hello: _encode_hello,
    m.Welcome: _encode_welcome,
    m.Subscribe: _encode_subscribe,
    m.Subscribed: lambda env, message: _set_subscribed(env.subscribed, message),
    m.Unsubscribe: _flat("unsubscribe", "channel"),
    m.RegisterToken: _flat("register_token", "provider token topic sandbox"),
    m.State: _flat("state", "state"),
    m.Error: _flat("error", "code advice detail retry_after_ms jitter_ms channel"),
    m.GoAway: _flat("go_away", "code advice detail retry_after_ms jitter_ms close_after_ms"),
    m.Ok: _flat("ok", ""),
}


def encode(message: m.Message, request_id: int = 0) -> bytes:
    """The payload of one frame. Raises LocalProtocolError for a message or value that the schema cannot carry."""
    env = pb.Envelope()
    try:
        if request_id:
            env.id = request_id
        _ENCODERS[type(message)](env, message)
        return env.SerializeToString()
    except (KeyError, TypeError, ValueError) as error:  # its text may show the value, which may be a payload or a token
        raise LocalProtocolError(f"cannot encode {type(message).__name__}: {type(error).__name__}") from None
