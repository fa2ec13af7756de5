"""Who may push what to whom: what needs memory, and which fault wins."""

from __future__ import annotations

from dataclasses import replace
from unittest import TestCase

from streampush.apns.simulator import Devices, Environment, UpdateScope, Validation, mint_key
from streampush.apns.simulator.judging import Judge, Provider
from streampush.apns.simulator.validation import Request
from tests.apns.simulator.providers import MINTED, PAYLOAD, TOKEN, TOPIC, make_jwt, request_fields

OTHER_KEY = mint_key("SIMKEY0002")
OTHER_TEAM = mint_key("SIMKEY0003", "SIMTEAM002")
JWT = make_jwt()
VALIDATION = Validation(keys=(MINTED.key, OTHER_KEY.key, OTHER_TEAM.key))


class JudgeTests(TestCase):
    def setUp(self) -> None:
        self.devices = Devices()
        self.use(VALIDATION)

    def use(self, validation: Validation, certificate_topics: tuple[str, ...] = ()) -> Provider:
        self.judge = Judge(validation, self.devices)
        self.provider = self.judge.meet(certificate_topics)
        return self.provider

    def reason(
        self,
        jwt: bytes = JWT,
        *,
        token: str = TOKEN,
        now: float = 0.0,
        provider: Provider | None = None,
        **others: str | None,
    ) -> str:
        fields = request_fields(token, jwt, **others)
        verdict = self.judge.judge(Request(tuple(fields), PAYLOAD, len(PAYLOAD)), provider or self.provider, now)
        return verdict.reason.word if verdict.reason is not None else ""

    def test_method_and_path_come_before_who_asks(self) -> None:
        self.assertEqual(self.reason(b"", pseudo_method="GET"), "MethodNotAllowed")
        self.assertEqual(self.reason(b"", pseudo_path="/"), "BadPath")

    def test_who_asks_comes_before_the_headers(self) -> None:
        self.assertEqual(self.reason(b"", apns_priority="7"), "MissingProviderToken")

    def test_the_headers_come_before_the_device(self) -> None:
        self.assertEqual(self.reason(token="zz", apns_priority="7"), "BadPriority")
        self.assertEqual(self.reason(token="zz"), "BadDeviceToken")

    def test_a_connection_is_one_teams_and_one_keys(self) -> None:
        self.assertEqual(self.reason(), "")
        self.assertEqual(self.reason(make_jwt(OTHER_KEY)), "UnrelatedKeyIdInToken")
        self.assertEqual(self.reason(make_jwt(OTHER_TEAM)), "InvalidProviderToken")
        self.assertEqual(self.reason(make_jwt(OTHER_TEAM), provider=self.judge.meet()), "")

    def test_a_refused_token_does_not_bind_the_connection(self) -> None:
        self.assertEqual(self.reason(make_jwt(OTHER_TEAM, issued_at=-10)), "InvalidProviderToken")
        self.assertEqual(self.reason(), "")

    def test_a_key_of_the_other_environment_is_refused(self) -> None:
        self.use(Validation(keys=(replace(MINTED.key, environments=frozenset({Environment.PRODUCTION})),)))
        self.assertEqual(self.reason(), "BadEnvironmentKeyIdInToken")

    def test_a_key_of_the_other_environment_does_not_bind_the_connection(self) -> None:
        production = replace(OTHER_KEY.key, environments=frozenset({Environment.PRODUCTION}))
        self.use(Validation(keys=(production, MINTED.key)))
        self.assertEqual(self.reason(make_jwt(OTHER_KEY)), "BadEnvironmentKeyIdInToken")
        self.assertEqual(self.reason(), "")

    def test_tokens_are_counted_over_all_connections_or_for_each(self) -> None:
        second = make_jwt(issued_at=1)
        for scope, expected in ((UpdateScope.ACCOUNT, "TooManyProviderTokenUpdates"), (UpdateScope.CONNECTION, "")):
            self.use(replace(VALIDATION, update_scope=scope))
            self.assertEqual(self.reason(), "")
            self.assertEqual(self.reason(second, now=1.0), "TooManyProviderTokenUpdates")
            self.assertEqual(self.reason(second, now=1.0, provider=self.judge.meet()), expected)

    def test_one_device_can_have_enough(self) -> None:
        self.use(replace(VALIDATION, per_device=2, per_device_interval=10.0))
        self.assertEqual([self.reason(now=now) for now in (0.0, 1.0, 2.0, 9.0)], ["", "", "TooManyRequests", "TooManyRequests"])
        self.assertEqual(self.reason(token="b2" * 32, now=9.0), "")
        self.assertEqual(self.reason(now=10.0), "")

    def test_only_known_tokens_when_asked_for(self) -> None:
        self.devices = Devices(only_known=True)
        self.use(VALIDATION)
        self.assertEqual(self.reason(), "BadDeviceToken")
        self.devices.register(TOKEN.upper(), TOPIC)
        self.assertEqual(self.reason(), "")
        self.assertEqual(self.reason(apns_topic="com.example.other"), "DeviceTokenNotForTopic")

    def test_a_token_that_is_registered_again_is_good_again(self) -> None:
        self.devices.unregister(TOKEN, 1.0, expired=True)
        self.assertEqual(self.reason(), "ExpiredToken")
        self.devices.register(TOKEN)
        self.assertEqual(self.reason(), "")

    def test_topics_that_apple_does_not_know(self) -> None:
        self.use(replace(VALIDATION, topics=frozenset({"com.example.other"})))
        self.assertEqual(self.reason(), "TopicDisallowed")

    def test_a_certificate_stands_for_the_token_and_its_only_topic(self) -> None:
        self.use(VALIDATION, (TOPIC,))
        self.assertEqual(self.reason(b""), "")
        self.assertEqual(self.reason(b"", apns_topic=None), "")
        self.assertEqual(self.reason(b"", apns_topic="com.example.other"), "TopicDisallowed")
        self.use(VALIDATION, (TOPIC, TOPIC + ".voip"))
        self.assertEqual(self.reason(b"", apns_topic=None), "MissingTopic")

    def test_wall_time_is_what_tokens_are_about(self) -> None:
        judge = Judge(VALIDATION, self.devices, wall_offset=1_700_000_000.0)
        request = Request(tuple(request_fields(TOKEN, make_jwt(issued_at=1_700_000_005))), PAYLOAD, len(PAYLOAD))
        self.assertIsNone(judge.judge(request, judge.meet(), 5.0).reason)

    def test_the_same_seed_makes_the_same_ids(self) -> None:
        request = Request(tuple(request_fields(TOKEN, JWT)), PAYLOAD, len(PAYLOAD))
        ids = {seed: Judge(VALIDATION, self.devices, seed=seed).judge(request, self.provider, 0.0).apns_id for seed in (1, 2)}
        again = Judge(VALIDATION, self.devices, seed=1).judge(request, self.provider, 0.0).apns_id
        self.assertEqual(ids[1], again)
        self.assertNotEqual(ids[1], ids[2])
