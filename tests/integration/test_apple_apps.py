"""A reload of a node reads the apps of Apple's again; devices do not notice."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from streampush.apns.apps import App, Apps
from streampush.apns.signing_key import SigningKey
from tests.apns.minting import KEY, pem, write_private
from tests.integration.harness import TOML, NodeTestCase, run

APP = """
[[apns.apps]]
name = "shop"
bundle_id = "com.example.shop"
key = "AuthKey_KEY1234567.p8"
team_id = "TEAM123456"
key_id = "KEY1234567"
"""


class ReloadTests(NodeTestCase):
    def setUp(self) -> Deferred[None]:
        """The node begins without an app."""
        set_up = super().setUp()
        write_private(self.root / "AuthKey_KEY1234567.p8", pem(KEY))
        return set_up

    @property
    def apps(self) -> Apps:
        assert self.node is not None
        return self.node._parts.away.apps

    def reload(self, text: str) -> None:
        self.toml.write_text(TOML + text)
        assert self.node is not None
        self.node.reload()

    def shop(self) -> App:
        app = self.apps.named("shop")
        assert app is not None
        return app

    def failed(self) -> float:
        return self.metric("streampush_reloads_total", result="failed")

    @run
    async def test_an_app_comes_gets_another_key_and_goes(self) -> None:
        phone = await self.device("tablet-1")
        publisher = await self.publisher()
        self.reload(APP)
        self.assertEqual(self.shop().settings.bundle_id, "com.example.shop")
        write_private(self.root / "AuthKey_KEY7654321.p8", pem(ec.generate_private_key(ec.SECP256R1())))
        self.reload(APP.replace("KEY1234567", "KEY7654321"))
        credential = self.shop().route.credential
        assert isinstance(credential, SigningKey)
        self.assertEqual(credential.key_id, "KEY7654321")
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.reload("")
        self.assertEqual(len(self.apps), 0)
        self.assertIn("apps of Apple's in force: none", [formatEvent(event) for event in events])
        self.assertEqual(self.failed(), 0)
        await self.still_delivers(phone, publisher)

    @run
    async def test_a_broken_key_is_counted_and_the_old_one_stays(self) -> None:
        self.reload(APP)
        before = self.shop()
        Path(before.settings.key).write_text("broken")
        self.reload(APP)
        self.assertEqual((self.shop(), self.failed()), (before, 1))

    @run
    async def test_broken_settings_are_counted_and_all_apps_stay(self) -> None:
        self.reload(APP)
        before = self.shop()
        for text in (APP + "fallback_afer = 1", APP + APP, "[[apns.apps"):
            self.reload(text)
        self.assertEqual((self.shop(), self.failed()), (before, 3))
        self.assertEqual(self.metric("streampush_reloads_total", result="ok"), 4)  # of the stream, which has no part in it

    @run
    async def test_other_settings_are_not_read_again(self) -> None:
        before = self.apps
        self.reload(APP + "[publish]\nmax_payload = 5\n")
        assert self.node is not None
        self.assertEqual(self.node.config.publish.max_payload, 256 * 1024)
        self.assertIs(self.apps, before)
