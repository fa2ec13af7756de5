"""A disk that is full under a whole node, or a file that is gone: publishers get 3008, readiness names it, nothing that was
accepted is lost, and it recovers."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from twisted.internet.defer import Deferred

from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from tests.integration.harness import WireClient, run
from tests.integration.test_rest_live import RestTestCase
from tests.store.folders import quick_folder, small_disk

MIB = 1024 * 1024


class StoreFaultTestCase(RestTestCase):
    """What a node says of its store."""

    async def ready(self) -> tuple[int, str]:
        status, text = await self.ask("GET", "/readyz")
        return status, str(text)

    async def until_ready(self, status: int = 200) -> None:
        while (await self.ready())[0] != status:
            await self.turns(0.05)


class FullDiskTests(StoreFaultTestCase):
    def setUp(self) -> Deferred[None]:
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.disk = stack.enter_context(small_disk(12 * MIB))
        self.ballast = self.disk / "ballast"
        self.ballast.write_bytes(bytes(8 * MIB))
        self.settings = (f"store.path={self.disk}/store.db",)
        return super().setUp()

    async def fill_up(self, publisher: WireClient) -> list[bytes]:
        """Publishes until it is refused; gives the payloads that were accepted."""
        accepted: list[bytes] = []
        while True:
            payload = b"%d " % len(accepted) + bytes(50_000)
            publisher.send(m.Publish("news/full", payload), 9)
            while isinstance(answer := (await publisher.next())[1], m.Ping):
                continue  # a slow disk takes longer than the heartbeat
            if isinstance(answer, m.Error):
                self.assertEqual((answer.code, answer.advice), (Code.STORE_UNAVAILABLE, Advice.RETRY))
                self.assertIn("the disk is full", answer.detail)
                return accepted
            self.assertIsInstance(answer, m.PublishOk)
            accepted.append(payload)

    @run
    async def test_publishers_are_refused_with_3008_and_readiness_names_the_disk(self) -> None:
        await self.until_ready()
        await self.fill_up(await self.publisher())
        status, answer = await self.ask("POST", "/v1/publish", {"channel": "news/full", "payload": "x" * 50_000})
        self.assertEqual((status, answer["code"]), (503, Code.STORE_UNAVAILABLE))
        status, text = await self.ready()
        self.assertEqual(status, 503)
        self.assertIn("store: the disk is full (SQLITE_FULL)", text)
        self.assertGreaterEqual(self.metric("streampush_store_faults_total", kind="full"), 2)

    @run
    async def test_it_recovers_by_itself_and_a_device_gets_all_that_was_accepted(self) -> None:
        publisher = await self.publisher()
        accepted = await self.fill_up(publisher)
        self.ballast.unlink()
        await self.until_ready()
        publisher.send(m.Publish("news/full", b"afterwards"), 10)
        self.assertEqual((await publisher.expect(m.PublishOk)).offset, len(accepted) + 1)
        device = await self.device()
        device.send(m.Subscribe("news/full", m.Position(), m.Start.EARLIEST), 3)
        await device.expect(m.Subscribed)
        for payload in [*accepted, b"afterwards"]:
            delivery = await device.expect(m.Delivery)
            self.assertEqual(delivery.payload, payload)
            device.send(m.Ack(delivery.channel, delivery.offset))

    @run
    async def test_devices_read_on_while_the_disk_is_full(self) -> None:
        device = await self.device()
        device.send(m.Subscribe("news/full"), 3)
        await device.expect(m.Subscribed)
        accepted = await self.fill_up(await self.publisher())
        seen = [(await device.expect(m.Delivery)).payload for _ in accepted[:10]]
        self.assertEqual(seen, accepted[:10])

    @run
    async def test_it_starts_again_with_what_was_accepted(self) -> None:
        accepted = await self.fill_up(await self.publisher())
        await self.stop()
        self.ballast.unlink()
        self.start(*self.settings)
        assert self.node is not None
        self.assertEqual((await self.node.store.head("news/full")).top_offset, len(accepted))


class GoneFileTests(StoreFaultTestCase):
    """The file is moved away under the node, and comes back."""

    def setUp(self) -> Deferred[None]:
        folder = quick_folder()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "store.db"
        self.settings = (f"store.path={self.path}",)
        return super().setUp()

    @run
    async def test_publishers_are_refused_readiness_names_it_and_it_goes_on_when_the_file_is_back(self) -> None:
        await self.until_ready()
        publisher = await self.publisher()
        device = await self.device()
        device.send(m.Subscribe("news/gone", m.Position(), m.Start.EARLIEST), 3)
        await device.expect(m.Subscribed)
        publisher.send(m.Publish("news/gone", b"before"), 1)
        await publisher.expect(m.PublishOk)
        self.path.rename(self.path.with_name("aside.db"))
        await self.until_ready(503)
        self.assertIn("store: the store's file was deleted or moved away", (await self.ready())[1])
        self.assertEqual(self.metric("streampush_store_faults_total", kind="gone"), 1)
        self.assertEqual(self.metric("streampush_store_works"), 0)
        publisher.send(m.Publish("news/gone", b"refused"), 2)
        refused = await publisher.expect(m.Error)
        self.assertEqual((refused.code, refused.advice), (Code.STORE_UNAVAILABLE, Advice.RETRY))
        self.path.with_name("aside.db").rename(self.path)
        await self.until_ready()
        publisher.send(m.Publish("news/gone", b"after"), 3)
        await publisher.expect(m.PublishOk)
        self.assertEqual([(await device.expect(m.Delivery)).payload for _ in range(2)], [b"before", b"after"])
