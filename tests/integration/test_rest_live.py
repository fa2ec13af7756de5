"""The HTTP API on its real port, plain and under TLS, beside the stream server."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor, ssl
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS

from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from tests.integration.harness import NodeTestCase, run
from tests.support import authority

KEY = "sp_a-key-of-the-test"
KEYS = f"""
[[rest.keys]]
name = "test"
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
publish = ["device:*", "news/*"]
scopes = ["publish", "push", "read", "disconnect"]
"""


class RestTestCase(NodeTestCase):
    scheme = "http"
    toml_extra = KEYS

    async def ask(self, method: str, path: str, body: Any = None, key: str = KEY, port: int = 0) -> tuple[int, Any]:
        """Status and body, decoded if it is JSON. `port`: that of another process's node."""
        trust = ssl.Certificate.loadPEM(authority().issued.certificate_pem)
        agent = Agent(reactor, BrowserLikePolicyForHTTPS(ssl.trustRootFromCertificates([trust])))
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if not port:
            assert self.node is not None
            port = self.node.rest_port
        url = f"{self.scheme}://127.0.0.1:{port}{path}"
        response = await HTTPClient(agent).request(method, url, headers=headers, data=data)
        text = await response.text()
        return response.code, json.loads(text) if "json" in response.headers.getRawHeaders("content-type")[0] else text


class PlainTests(RestTestCase):
    @run
    async def test_published_message_arrives_at_the_device(self) -> None:
        device = await self.device()
        status, answer = await self.ask("POST", "/v1/publish", {"device": "phone-1", "payload": "hello", "ttl": 60})
        self.assertEqual((status, answer["channel"], answer["offset"], answer["connections"]), (200, "device:phone-1", 1, 1))
        delivery = await device.expect(m.Delivery)
        self.assertEqual((delivery.payload, delivery.message_id), (b"hello", answer["message_id"]))
        self.assertEqual(delivery.expires_at_ms - delivery.published_at_ms, 60_000)

    @run
    async def test_batch_answers_each_message(self) -> None:
        await self.device()
        batch = [{"device": "phone-1", "payload": "1"}, {"device": "nobody", "payload": "2"}, {"channel": "other", "payload": "3"}]
        status, answer = await self.ask("POST", "/v1/publish/batch", {"messages": batch})
        self.assertEqual(status, 200)
        self.assertEqual([row.get("problem", {}).get("code") for row in answer["results"]], [None, 3006, 3003])

    @run
    async def test_device_is_described_and_disconnected(self) -> None:
        device = await self.device()
        status, answer = await self.ask("GET", "/v1/devices/phone-1")
        self.assertEqual((status, answer["connected"], answer["user_id"]), (200, True, "alice"))
        status, answer = await self.ask("POST", "/v1/devices/phone-1/disconnect")
        self.assertEqual((status, answer), (200, {"disconnected": True}))
        self.assertEqual((await device.expect(m.GoAway)).code, Code.CONNECTION_TIMED_OUT)
        await device.closed
        await self.until(lambda: self.node.service.connected_devices() == 0)  # type: ignore[union-attr]
        while not answer.get("last_close_code"):  # it is stored a moment after the connection is gone
            status, answer = await self.ask("GET", "/v1/devices/phone-1")
        self.assertEqual((answer["connected"], answer["last_close_code"]), (False, 1001))

    @run
    async def test_channel_is_described(self) -> None:
        await self.ask("POST", "/v1/publish", {"topic": "news/a", "payload": "x"})
        status, answer = await self.ask("GET", "/v1/channels/news/a")
        self.assertEqual((status, answer["channel"]), (200, "news/a"))

    @run
    async def test_unknown_recipient_bad_json_unknown_field_missing_key_wrong_key_and_oversize(self) -> None:
        cases = (
            ({"device": "nobody", "payload": "x"}, KEY, 404, 3006),
            (b"{", KEY, 400, None),
            ({"device": "nobody", "payload": "x", "colour": "red"}, KEY, 400, None),
            ({"device": "nobody", "payload": "x"}, "", 401, None),
            ({"device": "nobody", "payload": "x"}, "wrong", 401, None),
            ({"topic": "news/a", "payload": "x" * (256 * 1024 + 1)}, KEY, 413, 3004),
        )
        for body, key, status, code in cases:
            got, answer = await self.ask("POST", "/v1/publish", body, key)
            self.assertEqual((got, answer["status"]), (status, status), answer)
            if code is not None:
                self.assertEqual(answer["code"], code)

    @run
    async def test_a_tls_handshake_on_the_plain_port_is_refused_and_the_api_goes_on(self) -> None:
        assert self.node is not None
        client = await self.connect_plain(self.node.rest_port)
        client.send_bytes(bytes.fromhex("1603010005010000010000") + b"\r\n\r\n")
        await client.closed
        self.assertEqual((await self.ask("GET", "/healthz"))[0], 200)

    @run
    async def test_ready_once_the_probe_has_come_through(self) -> None:
        await self.until(lambda: self.metric("streampush_probes_total", result="ok") == 1)
        self.assertEqual((await self.ask("GET", "/readyz", key=""))[0], 200)
        self.assertEqual((await self.ask("GET", "/healthz", key=""))[0], 200)
        status, text = await self.ask("GET", "/metrics", key="")
        self.assertEqual(status, 200)
        self.assertIn("streampush_probes_total", text)


class TlsTests(RestTestCase):
    scheme = "https"
    settings = ("rest.certificate=server.crt", "rest.key=secrets/server.key")

    @run
    async def test_serves_under_tls_and_reloads_the_certificate(self) -> None:
        self.assertEqual((await self.ask("GET", "/healthz"))[0], 200)
        renewed = authority().issue_server(["localhost", "127.0.0.1"])
        renewed.write(self.files.server.certificate, self.files.server.key)
        assert self.node is not None
        self.node.reload()
        self.assertEqual((await self.ask("GET", "/healthz"))[0], 200)
        self.files.server.certificate.write_text("broken")
        self.node.reload()
        self.assertEqual((await self.ask("GET", "/healthz"))[0], 200)
        self.assertEqual(self.metric("streampush_reloads_total", result="failed"), 2)
