"""Broadcast channels of the simulated Apple: managing them, publishing, and what is refused."""

from __future__ import annotations

import json
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.simulator import Channels, Orders, Reason, SigningKey, SimulatedApple, Validation
from streampush.apns.simulator.broadcasts import MAX_CHANNELS, Call, Done, Kind
from streampush.apns.simulator.orders import Order, Reject
from streampush.apns.simulator.validation import Request
from tests.apns.simulator.providers import MINTED, PAYLOAD, TOPIC, Answer, H2Provider

WANTED = {"message-storage-policy": 1, "push-type": "LiveActivity"}
REQUEST_ID = "123e4567-e89b-12d3-a456-4266554400a0"
CHANNELS, ALL, BROADCASTS = (path + TOPIC for path in ("/1/apps/", "/1/apps/", "/4/broadcasts/apps/"))
CHANNELS += "/channels"
ALL += "/all-channels"


class BroadcastCase(TestCase):
    def begin(self, *orders: Order, topics: frozenset[str] = frozenset()) -> None:
        key = SigningKey(MINTED.key.key_id, MINTED.key.team_id, MINTED.key.public_key, topics)
        self.apple = SimulatedApple(Validation(keys=(key,)), Orders(orders))
        self.provider = H2Provider(self.apple.connect(0.0))

    def setUp(self) -> None:
        self.begin()

    def call(self, method: str, path: str, body: bytes = b"", **others: str | None) -> Answer:
        return self.provider.answer(
            payload=body, pseudo_method=method, pseudo_path=path, **{"apns_topic": None, "apns_push_type": None, **others}
        )

    def create(self, wanted: object = WANTED, path: str = CHANNELS) -> Answer:
        return self.call("POST", path, json.dumps(wanted).encode())

    def channel(self, policy: int = 1) -> str:
        return self.create({**WANTED, "message-storage-policy": policy}).fields[b"apns-channel-id"].decode()

    def publish(self, channel: str | None, body: bytes = PAYLOAD, path: str = BROADCASTS, **others: str | None) -> Answer:
        fields = {"apns_push_type": "liveactivity", "apns_expiration": "0", "apns_priority": "10", "apns_channel_id": channel}
        return self.call("POST", path, body, **{**fields, **others})


class ManagementTests(BroadcastCase):
    def test_a_channel_is_made_read_listed_and_deleted(self) -> None:
        made = self.call("POST", CHANNELS, json.dumps(WANTED).encode(), apns_request_id=REQUEST_ID)
        self.assertEqual((made.status, made.body, made.fields[b"apns-request-id"]), (201, b"", REQUEST_ID.encode()))
        channel = made.fields[b"apns-channel-id"].decode()
        read = self.call("GET", CHANNELS, apns_channel_id=channel)
        self.assertEqual((read.status, json.loads(read.body)), (200, WANTED))
        other = self.channel()
        self.assertEqual(json.loads(self.call("GET", ALL).body), {"channels": [channel, other]})
        self.assertEqual(self.call("DELETE", CHANNELS, apns_channel_id=channel).status, 204)
        self.assertEqual(json.loads(self.call("GET", ALL).body), {"channels": [other]})
        self.assertEqual(self.call("GET", CHANNELS, apns_channel_id=channel).reason, "ChannelNotRegistered")

    def test_an_answer_has_a_request_id_and_no_apns_id(self) -> None:
        fields = self.call("GET", ALL).fields
        self.assertIn(b"apns-request-id", fields)
        self.assertNotIn(b"apns-id", fields)
        self.assertNotIn(b"apns-unique-id", fields)

    def test_what_is_asked_for_is_checked(self) -> None:
        cases = {
            "BadRequestPayload": [[], None, {"push-type": "LiveActivity"}, {**WANTED, "message-storage-policy": 2}],
            "MissingPushType": [{"message-storage-policy": 0}],
            "InvalidPushType": [{**WANTED, "push-type": "alert"}],
        }
        for reason, bodies in cases.items():
            for body in bodies:
                self.assertEqual(self.create(body).reason, reason)
        self.assertEqual(self.create({**WANTED, "message-storage-policy": True}).reason, "BadRequestPayload")
        self.assertEqual(len(self.apple.channels), 0)

    def test_paths_and_methods(self) -> None:
        self.assertEqual(self.call("PUT", CHANNELS).reason, "MethodNotAllowed")
        self.assertEqual(self.call("POST", ALL).reason, "MethodNotAllowed")
        self.assertEqual(self.call("GET", BROADCASTS).reason, "MethodNotAllowed")
        self.assertEqual(self.call("GET", "/1/apps/").reason, "BadPath")
        self.assertEqual(self.call("POST", BROADCASTS + "/x").reason, "BadPath")

    def test_channel_ids_are_checked(self) -> None:
        for channel, reason in ((None, "MissingChannelId"), ("not base64!", "BadChannelId"), ("A" * 200, "BadChannelId")):
            self.assertEqual(self.call("GET", CHANNELS, apns_channel_id=channel).reason, reason)

    def test_only_who_may_push_to_the_app_may_ask(self) -> None:
        self.assertEqual(self.call("GET", ALL, authorization=None).reason, "MissingProviderToken")
        self.begin(topics=frozenset({"com.example.other"}))
        self.assertEqual(self.call("GET", ALL).reason, "TopicDisallowed")

    def test_a_request_id_is_a_uuid(self) -> None:
        self.assertEqual(self.call("GET", ALL, apns_request_id="x").reason, "BadMessageId")

    def test_another_apps_channel_is_a_mismatch(self) -> None:
        other = self.create(path="/1/apps/com.example.other/channels").fields[b"apns-channel-id"].decode()
        self.assertEqual(self.call("GET", CHANNELS, apns_channel_id=other).reason, "TopicMismatch")

    def test_broadcasting_can_be_off(self) -> None:
        self.apple.channels.enabled = False
        self.assertEqual(self.create().reason, "FeatureNotEnabled")

    def test_apps_have_so_many_channels_and_no_more(self) -> None:
        channels = Channels()
        body = json.dumps(WANTED).encode()
        request = Request((), body, len(body))
        for _ in range(MAX_CHANNELS):
            self.assertIsInstance(channels.carry_out(Call.CREATE, TOPIC, request), Done)
        self.assertIs(channels.carry_out(Call.CREATE, TOPIC, request), Reason.CANNOT_CREATE_CHANNEL_CONFIG)
        self.assertIsInstance(channels.carry_out(Call.CREATE, "com.example.other", request), Done)

    def test_all_apps_together_have_so_many_and_no_more(self) -> None:
        channels = Channels(most=3)
        body = json.dumps(WANTED).encode()
        request = Request((), body, len(body))
        for number in range(3):
            channels.carry_out(Call.CREATE, f"com.example.{number}", request)
        self.assertIs(channels.carry_out(Call.CREATE, TOPIC, request), Reason.CANNOT_CREATE_CHANNEL_CONFIG)

    @given(body=st.binary(max_size=60), call=st.sampled_from(Call), channel=st.binary(max_size=40))
    def test_any_request_gets_an_answer(self, body: bytes, call: Call, channel: bytes) -> None:
        request = Request(((b"apns-channel-id", channel),), body, len(body))
        self.assertIsInstance(Channels().carry_out(call, TOPIC, request), Done | Reason)


class PublishTests(BroadcastCase):
    def test_it_is_accepted_and_recorded(self) -> None:
        channel = self.channel()
        answer = self.publish(channel, apns_request_id=REQUEST_ID)
        self.assertEqual((answer.status, answer.body, answer.fields[b"apns-request-id"]), (200, b"", REQUEST_ID.encode()))
        self.assertIn(b"apns-unique-id", answer.fields)
        managed, published = self.apple.ledger
        self.assertEqual((managed.kind, managed.accepted), (Kind.CHANNELS, False))
        self.assertEqual((published.kind, published.accepted, published.topic), (Kind.BROADCAST, True, TOPIC))
        self.assertEqual(self.apple.ledger.accepted, 1)

    def test_the_headers_are_checked(self) -> None:
        channel = self.channel()
        cases = {
            "MissingPushType": {"apns_push_type": None},
            "InvalidPushType": {"apns_push_type": "alert"},
            "BadPriority": {"apns_priority": "7"},
            "BadExpirationDate": {"apns_expiration": "soon"},
        }
        for reason, others in cases.items():
            self.assertEqual(self.publish(channel, **others).reason, reason)
        self.assertEqual(self.publish(channel, apns_expiration=None).reason, "BadExpirationDate")
        self.assertEqual(self.publish(None).reason, "MissingChannelId")
        self.assertEqual(self.publish("AAAA").reason, "ChannelNotRegistered")

    def test_a_channel_that_keeps_nothing_takes_no_expiration(self) -> None:
        self.assertEqual(self.publish(self.channel(0), apns_expiration="1700000000").reason, "BadExpirationDate")
        self.assertEqual(self.publish(self.channel(1), apns_expiration="1700000000").status, 200)

    def test_a_payload_has_up_to_5120_bytes(self) -> None:
        channel = self.channel()
        self.assertEqual(self.publish(channel, b'{"x":"' + b"y" * 5112 + b'"}').status, 200)
        self.assertEqual(self.publish(channel, b'{"x":"' + b"y" * 5113 + b'"}').status, 413)
        self.assertEqual(self.publish(channel, b"").reason, "PayloadEmpty")

    def test_orders_hold_for_it_too(self) -> None:
        self.begin(Reject(Reason.SERVICE_UNAVAILABLE))
        answer = self.publish("AAAA", apns_request_id=REQUEST_ID)
        self.assertEqual((answer.status, answer.fields[b"apns-request-id"]), (503, REQUEST_ID.encode()))
