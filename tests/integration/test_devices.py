"""Devices over REST beside the real stream server: made before they come, bound, watched, forgotten."""

from __future__ import annotations

import hashlib
from typing import Any

from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.protocol.terms import TokenProvider
from tests.integration.harness import WireClient, run
from tests.integration.test_rest_live import KEY, RestTestCase
from tests.support import device_issued

KEYS = f"""
[[rest.keys]]
name = "test"
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
publish = ["*"]
scopes = ["publish", "read", "devices", "disconnect"]
"""


class DeviceTests(RestTestCase):
    toml_extra = KEYS

    async def get(self, path: str) -> Any:
        status, answer = await self.ask("GET", path)
        self.assertEqual(status, 200, answer)
        return answer

    async def publish(self, **fields: str) -> Any:
        status, answer = await self.ask("POST", "/v1/publish", {"payload": "x", **fields})
        self.assertEqual(status, 200, answer)
        return answer

    async def gone(self, *clients: WireClient) -> None:
        for client in clients:
            client.cut()
            await client.closed
        await self.until(lambda: self.node.service.connected_devices() == 0)  # type: ignore[union-attr]

    @run
    async def test_device_that_was_made_gets_what_was_published_before_it_came(self) -> None:
        status, answer = await self.ask("PUT", "/v1/devices/phone-9", {"user_id": "zoe", "attributes": {"model": "x"}})
        self.assertEqual((status, answer["user_id"], answer["connected"]), (201, "zoe", False))
        await self.publish(device="phone-9")
        await self.publish(user="zoe")
        backlog = await self.get("/v1/devices/phone-9/backlog")
        self.assertEqual(
            [(row["channel"], row["waiting"]) for row in backlog["channels"]], [("device:phone-9", 1), ("user:zoe", 1)]
        )
        client = await self.device("phone-9", "")
        got = {(await client.expect(m.Delivery)).channel for _ in range(2)}
        self.assertEqual(got, {"device:phone-9", "user:zoe"})

    @run
    async def test_welcome_names_the_user_that_a_backend_has_bound_the_device_to(self) -> None:
        await self.ask("PUT", "/v1/devices/phone-9", {"user_id": "zoe"})
        client = await self.connect_device("phone-9")
        welcome = await client.greet()
        self.assertEqual((welcome.user_id, [one.channel for one in welcome.subscribed]), ("zoe", ["device:phone-9", "user:zoe"]))

    async def connect_device(self, device_id: str) -> WireClient:
        return await self.connect(device_issued(device_id, ""))

    @run
    async def test_connected_device_follows_its_new_user_at_once(self) -> None:
        client = await self.device("phone-9", "")
        await self.ask("PUT", "/v1/devices/phone-8", {"user_id": "ann"})
        await self.ask("PUT", "/v1/devices/phone-9", {"user_id": "ann"})
        self.assertEqual((await client.expect(m.Subscribed)).channel, "user:ann")
        await self.publish(user="ann")
        self.assertEqual((await client.expect(m.Delivery)).channel, "user:ann")
        presence = await self.get("/v1/presence/users/ann")
        self.assertEqual([row["device_id"] for row in presence["sessions"]], ["phone-9"])
        await self.ask("PUT", "/v1/devices/phone-9", {"user_id": ""})
        ended = await client.expect(m.Subscribed)
        self.assertEqual((ended.channel, ended.code), ("user:ann", Code.NOT_SUBSCRIBED))
        await self.publish(user="ann")
        await self.still_delivers(client, await self.publisher(), "device:phone-9")

    @run
    async def test_user_in_the_certificate_cannot_be_changed_while_it_is_connected(self) -> None:
        await self.device()
        status, answer = await self.ask("PUT", "/v1/devices/phone-1", {"user_id": "bob"})
        self.assertEqual((status, answer["code"]), (403, 3003))

    @run
    async def test_presence_follows_connections_that_come_go_and_are_replaced(self) -> None:
        older = await self.device()
        newer = await self.device()
        self.assertEqual((await older.expect(m.GoAway)).code, Code.REPLACED)
        await older.closed
        row = (await self.get("/v1/presence/users/alice"))["sessions"]
        self.assertEqual([one["device_id"] for one in row], ["phone-1"])
        newer.send(m.Subscribe("news/a"), 5)
        await newer.expect(m.Subscribed)
        presence = await self.get("/v1/presence/channels/news/a")
        self.assertEqual((presence["devices"], presence["device_ids"]), (1, ["phone-1"]))
        await self.gone(newer)
        self.assertEqual((await self.get("/v1/presence/users/alice"))["sessions"], [])
        self.assertEqual((await self.get("/v1/presence/channels/news/a"))["devices"], 0)

    @run
    async def test_forgotten_device_is_closed_and_unknown(self) -> None:
        client = await self.device()
        status, answer = await self.ask("DELETE", "/v1/devices/phone-1")
        self.assertEqual((status, answer), (200, {"forgotten": True}))
        self.assertEqual((await client.expect(m.GoAway)).code, Code.CONNECTION_TIMED_OUT)
        await client.closed
        self.assertEqual((await self.ask("GET", "/v1/devices/phone-1"))[0], 404)
        status, answer = await self.ask("POST", "/v1/publish", {"device": "phone-1", "payload": "x"})
        self.assertEqual((status, answer["code"]), (404, 3006))

    @run
    async def test_last_close_survives_in_the_record(self) -> None:
        client = await self.device()
        await self.gone(client)
        answer = await self.get("/v1/devices/phone-1")
        while not answer["last_close_code"]:  # it is stored a moment after the connection is gone
            answer = await self.get("/v1/devices/phone-1")
        self.assertEqual((answer["last_close_code"], answer["last_close_advice"]), (1001, "RECONNECT"))

    @run
    async def test_explanation_of_a_device_that_does_not_acknowledge(self) -> None:
        client = await self.device(hello=m.Hello(receive_window_messages=1))
        await self.publish(device="phone-1")
        await self.publish(device="phone-1")
        await client.expect(m.Delivery)
        answer = await self.get("/v1/devices/phone-1/explain")
        kinds = {verdict["kind"] for verdict in answer["verdicts"]}
        self.assertLessEqual({"connected", "window_full", "waiting", "no_topics"}, kinds)
        self.assertEqual(answer["verdicts"][0]["severity"], "problem")
        self.assertEqual(answer["facts"]["connection"]["open_messages"], 1)

    @run
    async def test_push_token_by_frame_and_over_rest_is_the_same_and_the_last_one_counts(self) -> None:
        client = await self.device("phone-1")
        path, token = "/v1/devices/phone-1/push-token", b"\x6b" * 32
        client.send(m.RegisterToken(TokenProvider.APNS, token, "com.example.shop", sandbox=True), 2)
        await client.expect(m.Ok)
        by_frame = await self.get(path)
        self.assertEqual((by_frame["topic"], by_frame["environment"]), ("com.example.shop", "sandbox"))
        body = {"token": token.hex(), "topic": "com.example.shop", "environment": "sandbox"}
        status, by_rest = await self.ask("PUT", path, body)
        self.assertEqual((status, by_rest["token_hash"]), (200, by_frame["token_hash"]))
        self.assertGreaterEqual(by_rest["registered_at_ms"], by_frame["registered_at_ms"])
        await self.ask("PUT", "/v1/devices/phone-2")
        self.assertEqual((await self.ask("PUT", "/v1/devices/phone-2/push-token", body))[0], 201)
        self.assertEqual((await self.ask("GET", path))[0], 404)
        client.send(m.RegisterToken(TokenProvider.APNS, token, "com.example.shop", sandbox=True), 3)
        await client.expect(m.Ok)
        self.assertEqual(await self.ask("DELETE", path), (200, {"removed": True}))
        self.assertFalse((await self.get("/v1/devices/phone-1"))["token_registered"])
