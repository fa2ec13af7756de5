"""Provider tokens: signature, age, and how often they are renewed."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.simulator import mint_key, read_key
from streampush.apns.simulator.provider_tokens import MAX_TOKEN_BYTES, ProviderToken, TokenCheck, TokenUpdates
from streampush.apns.simulator.reasons import Reason
from tests.apns.simulator.providers import MINTED, make_jwt

NOW = 1_700_000_000.0
KEY_ID, TEAM = MINTED.key.key_id, MINTED.key.team_id
CHECK = TokenCheck([MINTED.key])


def bearer(jwt: bytes) -> bytes:
    return b"bearer " + jwt


class CheckTests(TestCase):
    def refused(self, reason: Reason, authorization: bytes | None, wall: float = NOW) -> None:
        self.assertIs(TokenCheck([MINTED.key]).check(authorization, wall), reason)

    def test_a_good_token_names_its_key(self) -> None:
        token = CHECK.check(bearer(make_jwt(issued_at=NOW)), NOW)
        self.assertIsInstance(token, ProviderToken)
        self.assertEqual((token.key, token.issued_at), (MINTED.key, NOW))  # type: ignore[union-attr]

    def test_the_scheme_is_bearer_in_any_case(self) -> None:
        self.assertIsInstance(CHECK.check(b"Bearer " + make_jwt(issued_at=NOW), NOW), ProviderToken)

    def test_no_token_is_missing(self) -> None:
        for nothing in (None, b"", b"bearer", b"bearer ", b"basic " + make_jwt(issued_at=NOW)):
            self.refused(Reason.MISSING_PROVIDER_TOKEN, nothing)

    def test_it_is_good_for_an_hour(self) -> None:
        jwt = bearer(make_jwt(issued_at=NOW))
        self.assertIsInstance(CHECK.check(jwt, NOW + 3600), ProviderToken)
        self.refused(Reason.EXPIRED_PROVIDER_TOKEN, jwt, NOW + 3601)

    def test_it_is_not_from_the_future_but_for_a_little_skew(self) -> None:
        self.assertIsInstance(CHECK.check(bearer(make_jwt(issued_at=NOW + 5)), NOW), ProviderToken)
        self.refused(Reason.INVALID_PROVIDER_TOKEN, bearer(make_jwt(issued_at=NOW + 6)))

    def test_kid_iss_and_alg_are_right(self) -> None:
        claims = {"iss": TEAM, "iat": NOW}
        for header in ({"alg": "ES256", "kid": "OTHER"}, {"alg": "none", "kid": KEY_ID}, {"kid": KEY_ID}, {"alg": "ES256"}):
            self.refused(Reason.INVALID_PROVIDER_TOKEN, bearer(make_jwt(header=header, claims=claims)))
        for wrong in ({"iss": "OTHER", "iat": NOW}, {"iat": NOW}, {"iss": TEAM}):
            self.refused(Reason.INVALID_PROVIDER_TOKEN, bearer(make_jwt(claims=wrong)))

    def test_iat_is_a_time(self) -> None:
        for wrong in (str(NOW), True, None, -1, float("nan"), float("inf"), 10**400, [NOW]):
            self.refused(Reason.INVALID_PROVIDER_TOKEN, bearer(make_jwt(issued_at=wrong)))

    def test_another_keys_signature_is_not_good(self) -> None:
        other = mint_key(KEY_ID, TEAM)
        self.refused(Reason.INVALID_PROVIDER_TOKEN, bearer(make_jwt(other, NOW)))

    def test_a_signature_in_der_is_not_good(self) -> None:
        signed, _, _ = make_jwt(issued_at=NOW).rpartition(b".")
        self.refused(Reason.INVALID_PROVIDER_TOKEN, bearer(signed + b"." + urlsafe_b64encode(b"0" * 70).rstrip(b"=")))

    def test_one_that_is_far_too_long_is_not_looked_at(self) -> None:
        long = make_jwt(claims={"iss": TEAM, "iat": NOW, "x": "y" * MAX_TOKEN_BYTES})
        self.refused(Reason.INVALID_PROVIDER_TOKEN, bearer(long))

    @given(at=st.integers(0, 300), to=st.integers(0, 255))
    def test_a_changed_byte_is_noticed(self, at: int, to: int) -> None:
        good = make_jwt(issued_at=NOW)
        at %= len(good)
        changed = good[:at] + bytes([to]) + good[at + 1 :]
        if changed != good:
            found = TokenCheck([MINTED.key]).check(bearer(changed), NOW)
            self.assertIn(found, (Reason.INVALID_PROVIDER_TOKEN, Reason.MISSING_PROVIDER_TOKEN))

    @given(st.binary(max_size=200))
    def test_anything_gets_an_answer(self, authorization: bytes) -> None:
        self.assertIsInstance(CHECK.check(authorization, NOW), Reason)

    def test_a_token_shows_no_secret(self) -> None:
        jwt = make_jwt(issued_at=NOW)
        self.assertNotIn(jwt.decode(), repr(CHECK.check(bearer(jwt), NOW)))
        self.assertNotIn("PRIVATE", repr(MINTED))


class UpdateTests(TestCase):
    def setUp(self) -> None:
        self.updates = TokenUpdates(1200.0)

    def token(self, number: int, key: str = KEY_ID) -> ProviderToken:
        minted = MINTED.key if key == KEY_ID else mint_key(key).key
        return ProviderToken(minted, NOW, b"jwt %d" % number)

    def test_the_first_is_taken_and_used_on(self) -> None:
        self.assertTrue(all(self.updates.admit(self.token(1), now) for now in (0.0, 1.0, 3600.0)))

    def test_a_new_one_within_20_minutes_is_refused(self) -> None:
        self.updates.admit(self.token(1), 0.0)
        self.assertFalse(self.updates.admit(self.token(2), 1199.0))
        self.assertTrue(self.updates.admit(self.token(1), 1199.0))
        self.assertTrue(self.updates.admit(self.token(2), 1200.0))
        self.assertFalse(self.updates.admit(self.token(3), 2399.0))

    def test_keys_are_counted_apart(self) -> None:
        self.updates.admit(self.token(1), 0.0)
        self.assertTrue(self.updates.admit(self.token(2, "OTHERKEY01"), 1.0))


class KeyFileTests(TestCase):
    def test_a_minted_key_is_read_back(self) -> None:
        key = read_key(MINTED.p8, KEY_ID, TEAM, ["com.example.app"])
        self.assertIsInstance(TokenCheck([key]).check(bearer(make_jwt(issued_at=NOW)), NOW), ProviderToken)

    def test_what_is_no_p256_key_is_refused(self) -> None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        other = ec.generate_private_key(ec.SECP384R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for wrong, text in ((other, "P-256"), (b"nonsense", "PEM"), (b"", "PEM")):
            with self.assertRaisesRegex(ValueError, text):
                read_key(wrong, KEY_ID, TEAM)
