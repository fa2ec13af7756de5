"""The form of a request, as Apple's page has it."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.simulator.accounts import DeviceState, Environment, SigningKey
from streampush.apns.simulator.reasons import Reason
from streampush.apns.simulator.validation import (
    PUSH_TYPES,
    Push,
    Request,
    check_device,
    check_form,
    check_topic,
    find_apns_id,
    find_device_token,
)
from tests.apns.simulator.providers import MINTED, PAYLOAD, TOKEN, TOPIC, request_fields

APNS_ID = "123e4567-e89b-12d3-a456-4266554400a0"


def make_request(payload: bytes = PAYLOAD, size: int | None = None, **others: str | None) -> Request:
    return Request(tuple(request_fields(**others)), payload, len(payload) if size is None else size)  # type: ignore[arg-type]


class PathTests(TestCase):
    def test_the_token_is_what_stands_behind_the_path(self) -> None:
        self.assertEqual(find_device_token(make_request()), TOKEN)

    def test_only_post_is_taken(self) -> None:
        for method in ("GET", "PUT", "post", ""):
            self.assertIs(find_device_token(make_request(pseudo_method=method)), Reason.METHOD_NOT_ALLOWED)

    def test_a_path_without_token(self) -> None:
        for path in ("/3/device/", "/3/device"):
            self.assertIs(find_device_token(make_request(pseudo_path=path)), Reason.MISSING_DEVICE_TOKEN)

    def test_any_other_path_is_bad(self) -> None:
        for path in ("/", "/2/device/" + TOKEN, "/3/devices/" + TOKEN, f"/3/device/{TOKEN}/x", ""):
            self.assertIs(find_device_token(make_request(pseudo_path=path)), Reason.BAD_PATH)

    def test_a_repeated_header_is_refused(self) -> None:
        fields = (*request_fields(), (b"apns-topic", b"other"))
        self.assertIs(find_device_token(Request(fields)), Reason.DUPLICATE_HEADERS)


class FormTests(TestCase):
    def check(self, *arguments: object, **others: str | None) -> Push | Reason:
        return check_form(make_request(*arguments, **others), TOKEN)  # type: ignore[arg-type]

    def rejected(self, reason: Reason, *arguments: object, **others: str | None) -> None:
        self.assertIs(self.check(*arguments, **others), reason)

    def test_a_push_has_all_that_was_given(self) -> None:
        push = self.check(
            apns_id=APNS_ID, apns_priority="5", apns_expiration="1700000000", apns_collapse_id="score", apns_push_type="background"
        )
        self.assertEqual(push, Push(TOKEN, TOPIC, "background", 5, 1_700_000_000, "score", APNS_ID, PAYLOAD))

    def test_what_is_left_out_has_apples_defaults(self) -> None:
        self.assertEqual(self.check(apns_push_type=None), Push(TOKEN, TOPIC, "", 10, None, "", "", PAYLOAD))

    def test_an_apns_id_is_a_canonical_uuid(self) -> None:
        for wrong in (APNS_ID.upper(), APNS_ID[:-1], APNS_ID + "0", APNS_ID.replace("-", ""), "", "{" + APNS_ID + "}"):
            self.rejected(Reason.BAD_MESSAGE_ID, apns_id=wrong)

    def test_push_types_are_apples(self) -> None:
        for push_type, suffix in PUSH_TYPES.items():
            priority = "5" if push_type == "background" else "10"
            push = self.check(apns_push_type=push_type, apns_topic=TOPIC + suffix, apns_priority=priority)
            self.assertEqual(push.bundle_id if isinstance(push, Push) else push, TOPIC)
        self.rejected(Reason.INVALID_PUSH_TYPE, apns_push_type="Alert")

    def test_a_topic_fits_its_push_type(self) -> None:
        self.rejected(Reason.BAD_TOPIC, apns_push_type="voip")
        self.rejected(Reason.BAD_TOPIC, apns_push_type="voip", apns_topic=".voip")
        self.rejected(Reason.MISSING_TOPIC, apns_topic=None)

    def test_priorities_are_1_5_and_10(self) -> None:
        for priority in ("1", "5", "10"):
            self.assertIsInstance(self.check(apns_priority=priority), Push)
        for wrong in ("0", "2", "11", "05", "high", "-1"):
            self.rejected(Reason.BAD_PRIORITY, apns_priority=wrong)

    def test_a_background_push_has_priority_5_also_against_the_default(self) -> None:
        self.assertIsInstance(self.check(apns_push_type="background", apns_priority="5"), Push)
        for priority in ("10", "1", None):
            self.rejected(Reason.BAD_PRIORITY, apns_push_type="background", apns_priority=priority)

    def test_an_expiration_is_a_number_of_seconds(self) -> None:
        for good in ("0", "1", "1700000000"):
            self.assertIsInstance(self.check(apns_expiration=good), Push)
        for wrong in ("", "-1", "1.5", "soon", "9" * 15, "9" * 20):
            self.rejected(Reason.BAD_EXPIRATION_DATE, apns_expiration=wrong)

    def test_a_collapse_id_has_up_to_64_bytes(self) -> None:
        self.assertIsInstance(self.check(apns_collapse_id="x" * 64), Push)
        self.rejected(Reason.BAD_COLLAPSE_ID, apns_collapse_id="x" * 65)
        self.rejected(Reason.BAD_COLLAPSE_ID, apns_collapse_id="é" * 33)

    def test_a_payload_has_up_to_4096_bytes_and_5120_with_voip(self) -> None:
        def payload(size: int) -> bytes:
            return b'{"x":"' + b"y" * (size - 8) + b'"}'

        self.assertIsInstance(self.check(payload(4096)), Push)
        self.rejected(Reason.PAYLOAD_TOO_LARGE, payload(4097))
        self.assertIsInstance(self.check(payload(5120), apns_push_type="voip", apns_topic=TOPIC + ".voip"), Push)
        self.rejected(Reason.PAYLOAD_TOO_LARGE, payload(5121), apns_push_type="voip", apns_topic=TOPIC + ".voip")

    def test_a_payload_is_a_json_object(self) -> None:
        for wrong in (b"", b"{}", b"[]", b"null", b'"x"', b"{", b"\xff\xfe", b"[" * 3000):
            self.rejected(Reason.PAYLOAD_EMPTY, wrong)

    @given(
        fields=st.lists(
            st.tuples(
                st.sampled_from([name for name, _ in request_fields()] + [b"apns-id", b"apns-priority", b"apns-expiration"]),
                st.binary(max_size=80),
            ),
            max_size=12,
        ),
        body=st.binary(max_size=100),
    )
    def test_any_request_gets_an_answer(self, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
        request = Request(tuple(fields), body, len(body))
        found = find_device_token(request)
        find_apns_id(request)
        if isinstance(found, str):
            self.assertIsInstance(check_form(request, found), Push | Reason)


class PermissionTests(TestCase):
    def test_a_topic_is_allowed_by_apple_and_by_the_key(self) -> None:
        push, other = Push(TOKEN, TOPIC), Push(TOKEN, "com.example.other")
        key = SigningKey("K", "T", MINTED.key.public_key, frozenset({TOPIC}))
        self.assertIsNone(check_topic(push, key, frozenset()))
        self.assertIs(check_topic(other, key, frozenset()), Reason.TOPIC_DISALLOWED)
        self.assertIs(check_topic(other, None, frozenset({TOPIC})), Reason.TOPIC_DISALLOWED)
        self.assertIsNone(check_topic(Push(TOKEN, TOPIC + ".voip", "voip"), key, frozenset({TOPIC})))

    def test_a_device_token_has_a_form(self) -> None:
        for wrong in ("", "a1", "g" * 64, "a" * 65, "a1" * 101, "é" * 64):
            found = check_device(Push(wrong, TOPIC), DeviceState(), Environment.SANDBOX)
            self.assertIs(found, Reason.BAD_DEVICE_TOKEN)
        for good in ("a1" * 32, "A1" * 32, "0" * 160):
            self.assertIsNone(check_device(Push(good, TOPIC), DeviceState(), Environment.SANDBOX))

    def test_what_apple_knows_of_it_decides(self) -> None:
        cases = {
            None: Reason.BAD_DEVICE_TOKEN,
            DeviceState(): None,
            DeviceState(topic=TOPIC): None,
            DeviceState(topic="com.example.other"): Reason.DEVICE_TOKEN_NOT_FOR_TOPIC,
            DeviceState(inactive_since=1.0): Reason.UNREGISTERED,
            DeviceState(inactive_since=1.0, expired=True): Reason.EXPIRED_TOKEN,
            DeviceState(environment=Environment.PRODUCTION): Reason.BAD_DEVICE_TOKEN,
            DeviceState(environment=Environment.SANDBOX): None,
        }
        for state, reason in cases.items():
            self.assertIs(check_device(Push(TOKEN, TOPIC), state, Environment.SANDBOX), reason)

    def test_a_push_shows_neither_token_nor_payload(self) -> None:
        shown = repr(Push(TOKEN, TOPIC, payload=PAYLOAD)) + repr(make_request())
        self.assertNotIn(TOKEN, shown)
        self.assertNotIn("hello", shown)


def test_reasons_have_the_statuses_that_the_client_expects() -> None:
    from streampush.apns.reasons import REASONS

    for reason in Reason:
        assert REASONS[reason.word].status == reason.status
