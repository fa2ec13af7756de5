"""A store that was restored from a backup: devices that know of more are told what they have lost, never that all is well."""

from __future__ import annotations

from streampush.protocol import messages as m
from streampush.protocol.terms import LossReason
from tests.integration.harness import NodeTestCase, WireClient, run
from tests.store.sqlite_file import command
from tests.support import device_issued


class RestoredStoreTests(NodeTestCase):
    async def publish(self, publisher: WireClient, *payloads: bytes) -> None:
        for number, payload in enumerate(payloads, 10):
            publisher.send(m.Publish("device:phone-1", payload), number)
            await publisher.expect(m.PublishOk)

    async def take(self, device: WireClient, count: int) -> m.Resume:
        """Takes and acknowledges so many; gives where the device is then."""
        for _ in range(count):
            delivery = await device.expect(m.Delivery)
            device.send(m.Ack(delivery.channel, delivery.offset))
        await self.counted("streampush_acknowledgements_total", count, outcome="delivered")
        epoch = (await self.node.store.head("device:phone-1")).epoch  # type: ignore[union-attr]  # it runs
        return m.Resume("device:phone-1", m.Position(epoch, delivery.offset, delivery.message_id))

    async def restored_behind(self, *published_after: bytes) -> m.Resume:
        """A backup behind two messages, three more that the device takes, and then the backup is the store, to which others are
        published. Gives the device's position."""
        device, publisher = await self.device("phone-1", "alice"), await self.publisher()
        await self.publish(publisher, b"1", b"2")
        self.streampush("backup", str(self.root / "backup.db"))  # while the server runs
        await self.publish(publisher, b"3", b"4", b"5")
        position = await self.take(device, 5)
        await self.stop()
        self.streampush("restore", str(self.root / "backup.db"))
        self.start()
        if published_after:
            await self.publish(await self.publisher(), *published_after)
        return position

    def streampush(self, *arguments: str) -> None:
        result = command("store", arguments[0], "--config", self.toml, *arguments[1:])
        self.assertEqual(result.returncode, 0, result.stderr)

    async def resumed(self, position: m.Resume) -> tuple[WireClient, m.Subscribed]:
        client = await self.connect(device_issued("phone-1", "alice"))
        welcome = await client.greet(m.Hello(resume=(position,)))
        (subscribed,) = [one for one in welcome.subscribed if one.channel == position.channel]
        return client, subscribed

    @run
    async def test_a_device_ahead_of_the_restored_log_is_told_that_it_was_rewound(self) -> None:
        position = await self.restored_behind()
        _, subscribed = await self.resumed(position)
        self.assertEqual((subscribed.recovered, subscribed.loss), (False, LossReason.REWOUND))

    @run
    async def test_a_device_whose_offsets_were_given_to_others_is_told_of_the_mismatch(self) -> None:
        position = await self.restored_behind(b"other 3", b"other 4", b"other 5")
        _, subscribed = await self.resumed(position)
        self.assertEqual((subscribed.recovered, subscribed.loss), (False, LossReason.ID_MISMATCH))

    @run
    async def test_a_device_far_behind_the_new_end_is_told_of_the_mismatch_too(self) -> None:
        position = await self.restored_behind(*(b"other %d" % number for number in range(20)))
        _, subscribed = await self.resumed(position)
        self.assertEqual((subscribed.recovered, subscribed.loss), (False, LossReason.ID_MISMATCH))

    @run
    async def test_what_is_published_after_the_restore_reaches_the_device(self) -> None:
        position = await self.restored_behind(b"other 3", b"other 4", b"other 5")
        device, _ = await self.resumed(position)
        await self.publish(await self.publisher(), b"newest")
        seen = []
        while not seen or seen[-1] != b"newest":
            seen.append((await device.expect(m.Delivery)).payload)
        self.assertEqual(len(seen), len(set(seen)))

    @run
    async def test_a_device_that_was_no_further_than_the_backup_has_lost_nothing(self) -> None:
        device, publisher = await self.device("phone-1", "alice"), await self.publisher()
        await self.publish(publisher, b"1", b"2")
        position = await self.take(device, 2)
        self.streampush("backup", str(self.root / "backup.db"))
        await self.publish(publisher, b"3")
        await self.stop()
        self.streampush("restore", str(self.root / "backup.db"))
        self.start()
        _, subscribed = await self.resumed(position)
        self.assertEqual((subscribed.recovered, subscribed.loss), (True, LossReason.UNSPECIFIED))
