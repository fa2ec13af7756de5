"""Payloads and messages: docs/protocol.md sections 4, 5 and 13."""

from __future__ import annotations

import dataclasses
import traceback
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streampush._pb import streampush_pb2 as pb
from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.errors import LocalProtocolError, RemoteProtocolError
from streampush.protocol.terms import AppState, Durability, LossReason, Milestone, Outcome, Priority, Start, TokenProvider
from tests.protocol.strategies import MESSAGES, messages, u64


def decoded(**body: Any) -> m.Message:
    return codec.decode(pb.Envelope(**body).SerializeToString())[1]


WITH_EVERY_FIELD: tuple[m.Message, ...] = (
    m.Delivery("news", 7, "id", b"x", 1, 2, "text/plain", {"a": "b"}, "other", "key", Priority.HIGH),
    m.Ack("news", 7, Outcome.PROCESSED, "epoch"),
    m.Publish(
        "news",
        b"x",
        "text/plain",
        {"a": "b"},
        1,
        Durability.LOCAL_FSYNC,
        "once",
        Priority.HIGH,
        "key",
        2,
        True,
        True,
        3,
        4,
        m.Alert(title="t", badge=0, relevance_score=0.5),
    ),
    m.PublishOk("id", "news", 7, "epoch", Durability.LOCAL_FSYNC, 3, True, 1, True),
)
"""Those of which a field is written only if it is used."""


class TestRoundTrip:
    @pytest.mark.parametrize("message", WITH_EVERY_FIELD, ids=lambda message: type(message).__name__)
    def test_a_message_with_every_field_comes_back_as_it_went(self, message: m.Message) -> None:
        unused = [
            field.name
            for field in dataclasses.fields(message)
            if field.default is not dataclasses.MISSING and getattr(message, field.name) == field.default
        ]
        assert not unused
        assert codec.decode(codec.encode(message, 1)) == (1, message)

    @given(messages, u64)
    @example(m.Welcome(subscribed=(m.Subscribed("news"),)), 1)
    @example(m.Publish("news", b"", expires_at_ms=1 << 41, alert=m.Alert(title="t")), 1)
    def test_every_message_comes_back_as_it_went(self, message: m.Message, request_id: int) -> None:
        assert codec.decode(codec.encode(message, request_id)) == (request_id, message)

    def test_the_strategies_know_every_message(self) -> None:
        assert MESSAGES.keys() | {m.Unknown} == set(m.Message.__args__)  # type: ignore[attr-defined]

    @pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
    def test_an_empty_body_is_still_that_message(self, kind: type[m.Message]) -> None:
        name = next(
            field.name for field in pb.Envelope.DESCRIPTOR.fields if field.message_type and field.message_type.name == kind.__name__
        )
        body = pb.Envelope()
        getattr(body, name).SetInParent()
        _, message = codec.decode(body.SerializeToString())
        assert type(message) is kind
        assert type(codec.decode(codec.encode(message))[1]) is kind

    @pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
    def test_a_message_has_the_fields_of_the_schema(self, kind: type[m.Message]) -> None:
        ours = {field.name for field in dataclasses.fields(kind)}
        assert ours == set(pb.DESCRIPTOR.message_types_by_name[kind.__name__].fields_by_name)

    def test_a_resume_without_a_position_is_an_empty_one(self) -> None:
        hello = m.Hello(resume=(m.Resume("c"), m.Resume("d", m.Position("e", 1, "m"))))
        assert codec.decode(codec.encode(hello))[1] == hello

    def test_an_absent_position_is_none_and_an_empty_one_is_not(self) -> None:
        assert codec.decode(codec.encode(m.Subscribe("c")))[1] == m.Subscribe("c", None)
        assert codec.decode(codec.encode(m.Subscribe("c", m.Position())))[1] == m.Subscribe("c", m.Position())


class TestForwardCompatibility:
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"ack": pb.Ack(outcome=99)}, m.Ack("", 0, Outcome.UNSPECIFIED)),
            ({"error": pb.Error(advice=99)}, m.Error(0, Advice.UNSPECIFIED)),
            ({"go_away": pb.GoAway(advice=99)}, m.GoAway(0, Advice.UNSPECIFIED)),
            ({"publish": pb.Publish(durability=99)}, m.Publish("", b"", durability=Durability.UNSPECIFIED)),
            ({"publish": pb.Publish(priority=99)}, m.Publish("", b"", priority=Priority.UNSPECIFIED)),
            ({"delivery": pb.Delivery(priority=99)}, m.Delivery("", 0, "", b"", priority=Priority.UNSPECIFIED)),
            ({"publish_ok": pb.PublishOk(durability=99)}, m.PublishOk("", "", 0, "", Durability.UNSPECIFIED)),
            ({"subscribe": pb.Subscribe(start=99)}, m.Subscribe("", start=Start.UNSPECIFIED)),
            ({"subscribed": pb.Subscribed(loss=99)}, m.Subscribed("", loss=LossReason.UNSPECIFIED)),
            ({"receipt": pb.Receipt(milestone=99)}, m.Receipt("", "", 0, "", Milestone.UNSPECIFIED)),
            ({"state": pb.State(state=99)}, m.State(AppState.UNSPECIFIED)),
            ({"hello": pb.Hello(state=99)}, m.Hello(0, 0, state=AppState.UNSPECIFIED)),
            ({"register_token": pb.RegisterToken(provider=99)}, m.RegisterToken(TokenProvider.UNSPECIFIED)),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_an_unknown_enumeration_value_is_read_as_zero(self, body: dict[str, Any], message: m.Message) -> None:
        assert decoded(**body) == message

    @pytest.mark.parametrize("number", [4242, -1, 2**31 - 1])
    def test_an_unknown_code_keeps_its_number(self, number: int) -> None:
        assert decoded(error=pb.Error(code=number)) == m.Error(number)
        assert decoded(go_away=pb.GoAway(code=number)) == m.GoAway(number)
        assert decoded(subscribed=pb.Subscribed(code=number)) == m.Subscribed("", code=number)

    def test_a_known_code_is_a_code(self) -> None:
        message = decoded(error=pb.Error(code=1004))
        assert isinstance(message, m.Error)
        assert message.code is Code.DRAINING

    @pytest.mark.parametrize("payload", ["7805", "7805f20103616263", "a2060178"], ids=["no body", "field 30", "private field 100"])
    def test_a_body_that_is_not_known_is_unknown(self, payload: str) -> None:
        _, message = codec.decode(bytes.fromhex(payload))
        assert message == m.Unknown()

    def test_the_id_of_an_unknown_message_is_kept(self) -> None:
        assert codec.decode(bytes.fromhex("7805f20103616263")) == (5, m.Unknown())


class TestBadPayloads:
    @pytest.mark.parametrize("payload", ["0a0561", "970300", "ff", "0a020affff", "1202aaaa"])
    def test_garbage_is_the_peers_fault(self, payload: str) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            codec.decode(bytes.fromhex(payload))
        assert caught.value.code is Code.SERIALIZATION_ERROR
        assert str(caught.value) == f"2002: {len(payload) // 2} bytes are no Envelope"

    def test_text_that_is_no_utf8_is_the_peers_fault(self) -> None:
        with pytest.raises(RemoteProtocolError):
            codec.decode(bytes.fromhex("1203 0a 01 ff".replace(" ", "")))

    @given(st.binary(max_size=300))
    def test_arbitrary_bytes_raise_nothing_but_the_peers_fault(self, payload: bytes) -> None:
        try:
            _, message = codec.decode(payload)
        except RemoteProtocolError as error:
            assert error.code is Code.SERIALIZATION_ERROR
        else:
            assert isinstance(message, (*MESSAGES, m.Unknown))


class TestOurFaults:
    @pytest.mark.parametrize(
        "message",
        [
            m.Unknown(),
            m.Ack("c", -1),
            m.Ack("c", 2**64),
            m.Ack(7, 1),  # type: ignore[arg-type]
            m.Ack("\ud800", 1),
            m.Error(2**31),
            m.Delivery("c", 1, "m", "text"),  # type: ignore[arg-type]
        ],
        ids=["unknown", "negative", "too large", "no text", "surrogate", "code", "no bytes"],
    )
    def test_what_the_schema_cannot_carry_is_refused(self, message: m.Message) -> None:
        with pytest.raises(LocalProtocolError, match=f"cannot encode {type(message).__name__}"):
            codec.encode(message)

    def test_an_id_out_of_range_is_refused(self) -> None:
        with pytest.raises(LocalProtocolError, match="cannot encode Ping"):
            codec.encode(m.Ping(), -1)


class TestSecrets:
    @pytest.mark.parametrize(
        "message",
        [
            m.RegisterToken(TokenProvider.APNS, b"hush"),
            m.Publish("c", b"hush", headers={"h": "hush"}),
            m.Delivery("c", 1, "m", b"hush", headers={"h": "hush"}),
        ],
        ids=lambda message: type(message).__name__,
    )
    def test_tokens_payloads_and_headers_are_in_no_repr(self, message: m.Message) -> None:
        assert "hush" not in repr(message)

    @pytest.mark.parametrize(
        "message",
        [
            m.Publish("c", b"", headers={"h": b"\xffhush"}),  # type: ignore[dict-item]
            m.Publish("c", "hush"),  # type: ignore[arg-type]
            m.RegisterToken(TokenProvider.APNS, "hush"),  # type: ignore[arg-type]
            m.Publish(b"\xffhush", b""),  # type: ignore[arg-type]
        ],
    )
    def test_a_value_that_cannot_be_encoded_is_in_no_traceback(self, message: m.Message) -> None:
        with pytest.raises(LocalProtocolError) as caught:
            codec.encode(message)
        lines = "".join(traceback.format_exception_only(caught.value)) + str(caught.value.__cause__)
        assert "hush" not in lines
        assert caught.value.__suppress_context__
