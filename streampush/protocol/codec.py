"""Payload bytes to messages and back: the only module that touches the generated protobuf code.

An envelope is a pair `(id, message)`; `id` 0 means unsolicited. docs/protocol.md section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from streampush._pb import streampush_pb2 as pb
from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.errors import LocalProtocolError, RemoteProtocolError
from streampush.protocol.terms import AppState, Durability, LossReason, Milestone, Outcome, Priority, Start, TokenProvider

E = TypeVar("E", bound=IntEnum)


def _reader(kind: type[E]) -> Callable[[int], E]:
    """Gives the member of `kind`, or its zero for a number that a newer peer may send. Faster than calling `kind`."""
    members = {int(member): member for member in kind}
    zero = kind(0)
    return lambda number: members.get(number, zero)


_advice, _app_state, _durability, _loss_reason = _reader(Advice), _reader(AppState), _reader(Durability), _reader(LossReason)
_milestone, _outcome, _priority = _reader(Milestone), _reader(Outcome), _reader(Priority)
_start, _token_provider = _reader(Start), _reader(TokenProvider)
_codes: dict[int, Code] = {int(code): code for code in Code}


def _code(number: int) -> Code | int:
    return _codes.get(number, number)


# ------------------------------------------------------------------------------------------------------------------- encoding


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


# ------------------------------------------------------------------------------------------------------------------- decoding


def _position(body: pb.Position) -> m.Position:
    return m.Position(body.epoch, body.offset, body.last_message_id)


def _subscribed(body: pb.Subscribed) -> m.Subscribed:
    return m.Subscribed(
        channel=body.channel,
        epoch=body.epoch,
        offset=body.offset,
        top_offset=body.top_offset,
        recovered=body.recovered,
        loss=_loss_reason(body.loss),
        lost_at_most=body.lost_at_most,
        code=_code(body.code),
        detail=body.detail,
        last_message_id=body.last_message_id,
        durable=body.durable,
    )


def _hello(body: pb.Hello) -> m.Hello:
    return m.Hello(
        protocol_min=body.protocol_min,
        protocol_max=body.protocol_max,
        features=body.features,
        app=body.app,
        app_version=body.app_version,
        sdk=body.sdk,
        sdk_version=body.sdk_version,
        device_id=body.device_id,
        receive_window_messages=body.receive_window_messages,
        receive_window_bytes=body.receive_window_bytes,
        resume=tuple(m.Resume(row.channel, _position(row.position)) for row in body.resume),
        state=_app_state(body.state),
    )


def _welcome(body: pb.Welcome) -> m.Welcome:
    heartbeat, limits, reconnect = body.heartbeat, body.limits, body.reconnect
    return m.Welcome(
        protocol=body.protocol,
        features=body.features,
        session_id=body.session_id,
        node=body.node,
        heartbeat=m.HeartbeatPolicy(
            heartbeat.interval_ms, heartbeat.reply_timeout_ms, heartbeat.misses, heartbeat.min_ping_interval_ms
        ),
        limits=m.Limits(
            limits.max_frame,
            limits.max_payload,
            limits.max_subscriptions,
            limits.receive_window_messages,
            limits.receive_window_bytes,
            limits.ack_timeout_ms,
        ),
        reconnect=m.ReconnectPolicy(
            reconnect.first_jitter_ms, reconnect.backoff_initial_ms, reconnect.backoff_max_ms, reconnect.degraded_after
        ),
        subscribed=tuple(_subscribed(row) for row in body.subscribed),
        device_id=body.device_id,
        user_id=body.user_id,
        server_time_ms=body.server_time_ms,
    )


def _error(body: pb.Error) -> m.Error:
    advice = _advice(body.advice)
    return m.Error(_code(body.code), advice, body.detail, body.retry_after_ms, body.jitter_ms, body.channel)


def _go_away(body: pb.GoAway) -> m.GoAway:
    advice = _advice(body.advice)
    return m.GoAway(_code(body.code), advice, body.detail, body.retry_after_ms, body.jitter_ms, body.close_after_ms)


def _headers(headers: Any) -> dict[str, str]:
    return dict(headers) if headers else {}  # dict() of an empty map of protobuf costs a microsecond


def _delivery(body: pb.Delivery) -> m.Delivery:
    return m.Delivery(
        body.channel,
        body.offset,
        body.message_id,
        body.payload,
        body.published_at_ms,
        body.expires_at_ms,
        body.content_type,
        _headers(body.headers),
        body.recalls,
        body.collapse_key,
        _priority(body.priority),
    )


def _publish(body: pb.Publish) -> m.Publish:
    return m.Publish(
        body.channel,
        body.payload,
        body.content_type,
        _headers(body.headers),
        body.ttl_ms,
        _durability(body.durability),
        body.idempotency_key,
        _priority(body.priority),
        body.collapse_key,
        body.deliver_at_ms,
        body.want_receipt,
        body.clear_on_processed,
        body.version,
        body.expires_at_ms,
        _alert(body.alert) if body.HasField("alert") else None,
    )


def _alert(body: pb.Alert) -> m.Alert:
    return m.Alert(
        body.title,
        body.subtitle,
        body.body,
        body.badge if body.HasField("badge") else None,
        body.sound,
        body.category,
        body.thread_id,
        body.mutable_content,
        body.interruption_level,
        body.relevance_score if body.HasField("relevance_score") else None,
        body.custom,
        body.background,
        body.fallback_after_ms,
        body.only_when_away,
    )


def _publish_ok(body: pb.PublishOk) -> m.PublishOk:
    return m.PublishOk(
        body.message_id,
        body.channel,
        body.offset,
        body.epoch,
        _durability(body.durability),
        body.connections,
        body.duplicate,
        body.deliver_at_ms,
        body.superseded,
    )


def _subscribe(body: pb.Subscribe) -> m.Subscribe:
    position = _position(body.position) if body.HasField("position") else None
    return m.Subscribe(body.channel, position, _start(body.start), body.durable)


def _receipt(body: pb.Receipt) -> m.Receipt:
    milestone = _milestone(body.milestone)
    return m.Receipt(body.message_id, body.channel, body.offset, body.device_id, milestone, body.at_ms)


_PING, _PONG, _OK, _UNKNOWN = m.Ping(), m.Pong(), m.Ok(), m.Unknown()

_DECODERS: dict[str, Callable[[Any], m.Message]] = {
    "delivery": _delivery,
    "ack": lambda body: m.Ack(body.channel, body.offset, _outcome(body.outcome), body.epoch),
    "ping": lambda body: _PING,
    "pong": lambda body: _PONG,
    "publish": _publish,
    "publish_ok": _publish_ok,
    "credit": lambda body: m.Credit(body.messages, body.bytes),
    "backlog_end": lambda body: m.BacklogEnd(body.channel, body.offset),
    "receipt": _receipt,
    "hello": _hello,
    "welcome": _welcome,
    "subscribe": _subscribe,
    "subscribed": _subscribed,
    "unsubscribe": lambda body: m.Unsubscribe(body.channel),
    "register_token": lambda body: m.RegisterToken(_token_provider(body.provider), body.token, body.topic, body.sandbox),
    "state": lambda body: m.State(_app_state(body.state)),
    "error": _error,
    "go_away": _go_away,
    "ok": lambda body: _OK,
}


def decode(payload: bytes) -> tuple[int, m.Message]:
    """The id and the message in one frame's payload.

    A body that this version does not know gives `Unknown`. Raises RemoteProtocolError(SERIALIZATION_ERROR) if the bytes are
    no Envelope.
    """
    try:
        env = pb.Envelope.FromString(payload)
    except DecodeError as error:
        raise RemoteProtocolError(Code.SERIALIZATION_ERROR, f"{len(payload)} bytes are no Envelope") from error
    body = env.WhichOneof("body")
    if body is None:
        return env.id, _UNKNOWN
    return env.id, _DECODERS[body](getattr(env, body))
