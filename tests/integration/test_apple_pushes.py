"""A whole node beside a simulated Apple, over TLS: from a publish with an alert to the device's notification and the receipt."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import formatEvent, globalLogPublisher

from streampush.apns import vigil
from streampush.apns.simulator import Orders, SimulatedApple, UpdateScope, Validation, mint_key, token_hash
from streampush.apns.simulator.orders import Delay, Order, Stall, When
from streampush.apns.simulator.records import Processed
from streampush.apns.simulator.server import AppleServer, listen
from streampush.loading import load_config
from streampush.node_service import StreampushService
from streampush.protocol import messages as m
from streampush.protocol.terms import Outcome, TokenProvider
from streampush.push.leasing import LEASE
from tests.apns.minting import write_private
from tests.integration.harness import WireClient, run
from tests.integration.test_rest_live import KEYS, RestTestCase
from tests.support import server_issued

TOPIC = "com.example.shop"
MINTED = mint_key()
TOKEN = bytes(range(32))


class AppleTestCase(RestTestCase):
    """The node has one app, whose server is `apple`."""

    toml_extra = KEYS.replace('publish = ["device:*"', 'publish = ["user:*", "device:*"')

    orders: tuple[Order, ...] = ()
    shift = 0.0
    """Seconds by which the node's clock is ahead."""
    apple_shift = 0.0
    """The same of Apple's."""

    def setUp(self) -> Deferred[None]:
        self.seen: list[tuple[Processed, bytes]] = []
        self.apple = SimulatedApple(
            Validation(keys=(MINTED.key,), update_scope=UpdateScope.CONNECTION),  # a node starts again
            Orders(self.orders),
            wall_offset=self.apple_shift,
            on_processed=lambda record, body: self.seen.append((record, body)),
        )
        issued = server_issued()
        self.server: AppleServer = listen(reactor, self.apple, certificate=issued.certificate_pem, key=issued.key_pem)
        return super().setUp()

    def system_ns(self) -> int:
        return time.time_ns() + int(self.shift * 1e9)

    def start(self, *settings: str) -> Any:
        write_private(self.root / "AuthKey_SIMKEY0001.p8", MINTED.p8)
        self.toml.write_text(self.toml.read_text().partition("[[apns.apps]]")[0] + self.app())
        return super().start(*settings)

    def app(self) -> str:
        return f"""[[apns.apps]]
name = "shop"
bundle_id = "{TOPIC}"
environment = "sandbox"
host = "localhost"
port = {self.server.port}
ca = "ca.crt"
key = "AuthKey_SIMKEY0001.p8"
team_id = "{MINTED.key.team_id}"
key_id = "{MINTED.key.key_id}"
fallback_after = 0.2
"""

    def tearDown(self) -> Deferred[None]:
        return ensureDeferred(self._end())

    async def _end(self) -> None:
        await self.stop()
        await self.server.stop()
        self.assertEqual(list(self.apple.ledger.faults), [])

    async def registered(self, device_id: str = "phone-1", token: bytes = TOKEN) -> WireClient:
        """A device that is connected, and has told its token."""
        phone = await self.device(device_id)
        phone.send(m.RegisterToken(TokenProvider.APNS, token, TOPIC, sandbox=True), 9)
        await phone.expect(m.Ok)
        return phone

    async def gone(self, phone: WireClient) -> None:
        """The device goes away, and the server knows it."""
        assert self.node is not None
        node = self.node
        phone.cut()
        await phone.closed
        await self.until(lambda: not node.node.connections)

    async def publish(self, **fields: Any) -> str:
        status, answer = await self.ask("POST", "/v1/publish", {"device": "phone-1", "payload": "hello", **fields})
        self.assertEqual(status, 200, answer)
        return str(answer["message_id"])

    async def result(self, message_id: str) -> dict[str, Any]:
        """How the push to the one device of the message ended, when it has."""
        while True:
            status, document = await self.ask("GET", f"/v1/messages/{message_id}")
            self.assertEqual(status, 200, document)
            pushes = [row["push"] for row in document["devices"] if "push" in row]
            if pushes:
                return dict(pushes[0])
            await self.turns(0.02)


class ChangeOverTests(AppleTestCase):
    def app(self) -> str:
        return super().app().replace("fallback_after = 0.2", "fallback_after = 1.5")

    @run
    async def test_an_alert_waits_for_a_device_that_may_be_on_its_way_from_the_process_before(self) -> None:
        await self.gone(await self.registered())
        await self.stop()
        self.node = StreampushService(reactor, load_config(str(self.toml), {}), system_ns=self.system_ns)
        self.node.ports.take()
        self.node.begin(follows=True)
        begun = time.monotonic()
        await self.result(await self.publish(alert={"title": "Your parcel"}))
        self.assertGreater(time.monotonic() - begun, 1.4)  # the time of the message is in whole milliseconds


class PushTests(AppleTestCase):
    @run
    async def test_a_device_that_is_away_gets_its_push_and_the_receipt_says_so(self) -> None:
        await self.gone(await self.registered())
        message_id = await self.publish(alert={"title": "Your parcel"})
        result = await self.result(message_id)
        ((record, body),) = self.seen
        self.assertEqual((result["outcome"], result["apns_id"]), ("delivered", record.apns_id))
        self.assertEqual((record.token_hash, record.topic, record.push_type), (token_hash(TOKEN.hex()), TOPIC, "alert"))
        self.assertEqual(json.loads(body)["aps"], {"alert": {"title": "Your parcel"}})
        self.assertEqual(json.loads(body)["streampush"]["id"], message_id)
        self.assertEqual(self.metric("streampush_apns_pushes_total", app="shop", outcome="delivered", reason=""), 1)
        self.assertEqual(self.metric("streampush_apns_connections", state="open"), 1)
        self.assertEqual(self.metric("streampush_apns_answer_seconds_count"), 1)

    @run
    async def test_the_message_is_there_too_when_the_device_comes_back(self) -> None:
        await self.gone(await self.registered())
        message_id = await self.publish(alert={"title": "Your parcel"})
        await self.result(message_id)
        phone = await self.device()
        self.assertEqual((await phone.expect(m.Delivery)).message_id, message_id)

    @run
    async def test_a_device_that_is_connected_but_silent_gets_its_push(self) -> None:
        phone = await self.registered()
        message_id = await self.publish(alert={"title": "Are you there?"})
        self.assertEqual((await phone.expect(m.Delivery)).message_id, message_id)
        self.assertEqual((await self.result(message_id))["outcome"], "delivered")

    @run
    async def test_a_device_that_acknowledges_in_time_gets_none(self) -> None:
        phone = await self.registered()
        message_id = await self.publish(alert={"title": "Are you there?"})
        delivery = await phone.expect(m.Delivery)
        phone.send(m.Ack("device:phone-1", delivery.offset, Outcome.PROCESSED))
        result = await self.result(message_id)
        self.assertEqual((result["outcome"], result["reason"]), ("cancelled", "acknowledged"))
        self.assertEqual(self.seen, [])

    @run
    async def test_a_message_without_an_alert_is_not_pushed(self) -> None:
        await self.gone(await self.registered())
        await self.publish()
        await self.result(await self.publish(alert={"title": "This one"}))
        self.assertEqual(len(self.seen), 1)

    @run
    async def test_a_dead_token_is_forgotten(self) -> None:
        await self.gone(await self.registered())
        self.apple.devices.unregister(TOKEN.hex(), time.time() + 1)
        result = await self.result(await self.publish(alert={"title": "one"}))
        self.assertEqual((result["outcome"], result["reason"]), ("rejected", "Unregistered"))
        result = await self.result(await self.publish(alert={"title": "two"}))
        self.assertEqual((result["outcome"], result["reason"]), ("not_sent", "no token"))

    @run
    async def test_a_token_that_was_registered_since_is_kept(self) -> None:
        self.apple.devices.unregister(TOKEN.hex(), time.time() - 60)
        await self.gone(await self.registered())
        self.assertEqual((await self.result(await self.publish(alert={"title": "one"})))["outcome"], "rejected")
        self.apple.devices.register(TOKEN.hex())
        self.assertEqual((await self.result(await self.publish(alert={"title": "two"})))["outcome"], "delivered")

    @run
    async def test_all_devices_of_a_user_that_are_away_get_theirs(self) -> None:
        for device_id, token in (("phone-1", TOKEN), ("tablet-1", TOKEN[::-1])):
            await self.gone(await self.registered(device_id, token))
        status, answer = await self.ask("POST", "/v1/publish", {"user": "alice", "payload": "x", "alert": {"title": "Both"}})
        self.assertEqual(status, 200, answer)
        await self.until(lambda: len(self.seen) == 2)
        hashes = {record.token_hash for record, _ in self.seen}
        self.assertEqual(hashes, {token_hash(TOKEN.hex()), token_hash(TOKEN[::-1].hex())})
        self.assertEqual(len({record.apns_id for record, _ in self.seen}), 2)

    @run
    async def test_followers_of_a_topic_that_are_away_get_theirs_and_are_counted(self) -> None:
        phone, other = await self.registered(), await self.device("tablet-1")
        for device in (phone, other):
            device.send(m.Subscribe("news/today", durable=True), 3)
            await device.expect(m.Subscribed)
        other.cut()
        await self.gone(phone)
        status, answer = await self.ask("POST", "/v1/publish", {"topic": "news/today", "payload": "x", "alert": {"title": "News"}})
        self.assertEqual(status, 200, answer)
        counts: dict[str, int] = {}
        while sum(counts.values()) < 2:
            await self.turns(0.02)
            counts = (await self.ask("GET", f"/v1/messages/{answer['message_id']}"))[1]["pushes"]
        self.assertEqual(counts, {"delivered": 1, "not_sent": 1})
        self.assertEqual(len(self.seen), 1)

    @run
    async def test_while_apple_refuses_the_key_pushes_wait_and_a_reload_with_a_good_one_lets_them_go(self) -> None:
        await self.gone(await self.registered())
        assert self.node is not None
        key = self.root / "AuthKey_SIMKEY0001.p8"
        write_private(key, mint_key().p8)
        self.node.reload()
        message_id = await self.publish(alert={"title": "patience"})
        await self.counted("streampush_apns_stopped", app="shop")
        write_private(key, MINTED.p8)
        self.node.reload()
        self.assertEqual((await self.result(message_id))["outcome"], "delivered")
        self.assertEqual(self.metric("streampush_apns_stopped", app="shop"), 0)
        self.assertEqual(self.apple.ledger.accepted, 1)


class DirectPushTests(AppleTestCase):
    """Without a message: POST /v1/apns/push."""

    async def push(self, **fields: Any) -> tuple[int, Any]:
        return await self.ask("POST", "/v1/apns/push", {"device_token": TOKEN.hex(), "alert": {"title": "Hi"}, **fields})

    @run
    async def test_a_push_without_a_message_reaches_apple(self) -> None:
        status, answer = await self.push(app="shop", collapse_id="score")
        self.assertEqual((status, answer["outcome"], answer["status"]), (200, "delivered", 200), answer)
        ((record, body),) = self.seen
        self.assertEqual((record.apns_id, record.token_hash), (answer["apns_id"], token_hash(TOKEN.hex())))
        self.assertEqual(json.loads(body), {"aps": {"alert": {"title": "Hi"}}})

    @run
    async def test_a_dead_token_is_taken_from_the_device_that_has_it(self) -> None:
        await self.gone(await self.registered())
        self.apple.devices.unregister(TOKEN.hex(), time.time() - 60)  # before it was registered
        status, answer = await self.push()
        self.assertEqual((status, answer["outcome"], answer["status"], answer["reason"]), (200, "rejected", 410, "Unregistered"))
        self.assertFalse(answer["token_dropped"])
        self.apple.devices.unregister(TOKEN.hex(), time.time() + 1)
        self.assertTrue((await self.push())[1]["token_dropped"])
        self.assertFalse((await self.push())[1]["token_dropped"])
        result = await self.result(await self.publish(alert={"title": "one"}))
        self.assertEqual((result["outcome"], result["reason"]), ("not_sent", "no token"))

    @run
    async def test_what_is_refused_names_its_field_and_not_the_token(self) -> None:
        status, answer = await self.push(device_token=TOKEN.hex() + "z")
        self.assertEqual((status, answer["field"]), (400, "device_token"))
        self.assertNotIn(TOKEN.hex(), str(answer))
        self.assertEqual((await self.push(app="nope"))[0], 404)
        self.assertEqual(self.seen, [])

    @run
    async def test_it_counts_against_the_rate_of_the_publisher(self) -> None:
        await self.restart("publish.publisher_burst=1", "publish.publisher_rate=0.1")
        self.assertEqual((await self.push())[0], 200)
        status, answer = await self.push()
        self.assertEqual((status, answer["retry_after"] > 0), (429, True))
        self.assertEqual(len(self.seen), 1)


class UnconfiguredTests(AppleTestCase):
    def app(self) -> str:
        return ""

    @run
    async def test_without_an_app_the_answer_says_so(self) -> None:
        status, answer = await self.ask("POST", "/v1/apns/push", {"device_token": TOKEN.hex(), "background": True})
        self.assertEqual((status, answer["detail"]), (409, "no app is configured to push with: [[apns.apps]]"))


class ConfigurationTests(AppleTestCase):
    """Apps come and go while the node runs."""

    configured = False

    def app(self) -> str:
        return super().app() if self.configured else ""

    @run
    async def test_without_an_app_alerts_are_not_kept_and_from_a_reload_on_they_are(self) -> None:
        await self.gone(await self.registered())
        before = await self.publish(alert={"title": "nobody sends this"})
        assert self.node is not None
        self.assertEqual((await self.node.store.status()).outbox, 0)
        self.configured = True
        self.toml.write_text(self.toml.read_text() + self.app())
        self.node.reload()
        self.assertEqual((await self.result(await self.publish(alert={"title": "but this"})))["outcome"], "delivered")
        _, document = await self.ask("GET", f"/v1/messages/{before}")
        self.assertNotIn("push", document["devices"][0] if document["devices"] else {})


class UnreachableTests(AppleTestCase):
    """Nobody listens where Apple should be."""

    def app(self) -> str:
        return super().app().replace(f"port = {self.server.port}", "port = 1")

    def setUp(self) -> Deferred[None]:
        self.patch(vigil, "LOOK", 0.05)
        self.lines: list[str] = []
        observe = lambda event: self.lines.append(formatEvent(event))  # noqa: E731 - to be removed again
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return super().setUp()

    @run
    async def test_the_log_says_why_there_is_no_connection(self) -> None:
        await self.gone(await self.registered())
        await self.publish(alert={"title": "hello?"})
        await self.until(lambda: any(line.startswith("no connection to Apple at localhost:1: ") for line in self.lines))

    @run
    async def test_a_message_that_is_recalled_while_its_push_waits_is_not_pushed(self) -> None:
        await self.gone(await self.registered())
        message_id = await self.publish(alert={"title": "a mistake"})
        assert self.node is not None
        follow_ups = self.node.service.follow_ups
        assert follow_ups is not None
        await self.until(lambda: follow_ups.in_flight == 1)
        status, answer = await self.ask("DELETE", f"/v1/messages/{message_id}")
        self.assertEqual((status, answer["recalled"]), (200, True))
        result = await self.result(message_id)
        self.assertEqual((result["outcome"], result["reason"]), ("cancelled", "recalled"))


class StopTests(AppleTestCase):
    """What a node has not pushed when it stops, the next one pushes."""

    away = True

    def app(self) -> str:
        app = super().app()
        return app.replace(f"port = {self.server.port}", "port = 1") if self.away else app

    @run
    async def test_what_waits_for_a_connection_goes_out_after_the_next_start(self) -> None:
        await self.gone(await self.registered())
        message_id = await self.publish(alert={"title": "later"})
        assert self.node is not None
        follow_ups = self.node.service.follow_ups
        assert follow_ups is not None
        await self.until(lambda: follow_ups.in_flight == 1)
        await self.stop()
        self.away = False
        self.start()
        self.assertEqual((await self.result(message_id))["outcome"], "delivered")
        self.assertEqual(len(self.seen), 1)


class LateAnswerTests(AppleTestCase):
    """A node that is stopped while it waits for Apple's answer waits for it, and stores it."""

    orders = (Delay(0.5),)

    @run
    async def test_a_push_that_is_under_way_at_the_stop_is_not_repeated(self) -> None:
        await self.gone(await self.registered())
        message_id = await self.publish(alert={"title": "just now"})
        await self.until(lambda: bool(self.seen))
        await self.stop()
        self.start()
        _, document = await self.ask("GET", f"/v1/messages/{message_id}")
        self.assertEqual(document["devices"][0]["push"]["outcome"], "delivered")
        self.assertEqual(len(self.seen), 1)


class HurryTests(AppleTestCase):
    """A second signal while the node stops."""

    orders = (Stall(),)

    async def stop_in_a_hurry(self, *, at_once: bool) -> None:
        """The answer never comes, so without the second signal the node would wait for 10 s."""
        assert self.node is not None
        stopped = self.node.stopService()
        self.node = None
        await self.turns(0.0 if at_once else 0.3)
        self.assertFalse(stopped.called)
        second: Any = signal.getsignal(signal.SIGTERM)
        began = time.monotonic()
        second(signal.SIGTERM, None)
        await stopped
        self.assertLess(time.monotonic() - began, 5.0)

    @run
    async def test_it_ends_the_wait_for_apples_answers(self) -> None:
        await self.gone(await self.registered())
        message_id = await self.publish(alert={"title": "no answer"})
        await self.until(lambda: bool(self.seen))
        await self.stop_in_a_hurry(at_once=False)
        self.start()
        _, document = await self.ask("GET", f"/v1/messages/{message_id}")
        self.assertNotIn("push", document["devices"][0])  # it will be sent again

    @run
    async def test_it_also_does_when_it_came_while_devices_were_to_leave(self) -> None:
        await self.gone(await self.registered())
        await self.publish(alert={"title": "no answer"})
        await self.until(lambda: bool(self.seen))
        other = await self.device("tablet-1")
        await self.stop_in_a_hurry(at_once=True)
        await other.closed
        self.clients.clear()


class KillTests(AppleTestCase):
    """A node that is killed while it waits for Apple's answer. The next one finds the work when the lease is over."""

    orders = (Stall(When(at=1)),)
    apple_shift = 2 * LEASE

    async def publish_and_kill(self, process: subprocess.Popen[bytes], log: Path) -> str:
        """The process is a node; it is killed as soon as Apple has its push."""
        try:
            while not (said := re.search(rb'"rest":"127.0.0.1:([0-9]+)"', log.read_bytes())):
                self.assertIsNone(process.poll(), log.read_text())
                await self.turns(0.05)
            body = {"device": "phone-1", "payload": "hello", "alert": {"title": "once more"}}
            status, answer = await self.ask("POST", "/v1/publish", body, port=int(said[1]))
            self.assertEqual(status, 200, answer)
            await self.until(lambda: bool(self.seen))
        finally:
            process.kill()
            process.wait()
        return str(answer["message_id"])

    @run
    async def test_the_push_is_repeated_with_the_same_id(self) -> None:
        await self.gone(await self.registered())
        await self.stop()
        log = self.root / "killed.log"
        twistd = [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=", "streampush"]
        with log.open("wb") as output:
            process = subprocess.Popen([*twistd, "--config", str(self.toml)], stdout=output, stderr=output)
            message_id = await self.publish_and_kill(process, log)
        self.shift = LEASE + 1
        self.start()
        self.assertEqual((await self.result(message_id))["outcome"], "delivered")
        first, second = (record for record, _ in self.seen)
        self.assertEqual(first.apns_id, second.apns_id)
        self.assertEqual(first.collapse_id, second.collapse_id)
