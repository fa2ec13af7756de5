"""Payload bytes to messages: the other half of `codec`."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from streampush._pb import streampush_pb2 as pb
from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.errors import RemoteProtocolError
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
