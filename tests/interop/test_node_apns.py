"""The simulated Apple with other people's HTTP/2 at the other end: Node's (nghttp2) and curl's."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from streampush.apns.simulator import Orders, SimulatedApple, Validation, preset
from streampush.apns.simulator.orders import Reject, When
from streampush.apns.simulator.reasons import Reason
from streampush.apns.simulator.server import AppleServer, listen
from tests.apns.simulator.providers import MINTED, PAYLOAD, TOKEN, TOPIC, make_jwt
from tests.support import authority, server_issued

SCRIPT = Path(__file__).with_name("node") / "apns.js"
NODE = which("node")
CURL = which("curl")


class ServedCase(TestCase):
    timeout = 120

    def serve(self, orders: Orders | None = None) -> AppleServer:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.ca = Path(directory.name) / "ca.crt"
        self.ca.write_bytes(authority().issued.certificate_pem)
        clock: Any = reactor
        self.apple = SimulatedApple(Validation(keys=(MINTED.key,)), orders, wall_offset=time.time() - clock.seconds())
        issued = server_issued()
        server = listen(reactor, self.apple, certificate=issued.certificate_pem, key=issued.key_pem)
        self.addCleanup(lambda: ensureDeferred(server.stop()))
        return server

    def run_program(self, *command: str) -> Deferred[tuple[bytes, bytes, int]]:
        found: Deferred[tuple[bytes, bytes, int]] = getProcessOutputAndValue(command[0], command[1:])
        return found


@pytest.mark.skipif(NODE is None, reason="there is no `node`: install Node.js 20 or later")
class NodeTests(ServedCase):
    async def push(self, orders: Orders | None, count: int, size: int = 100) -> dict[str, Any]:
        server = self.serve(orders)
        jwt = make_jwt(issued_at=int(time.time())).decode()
        assert NODE is not None
        out, err, code = await self.run_program(
            NODE, str(SCRIPT), str(server.port), str(self.ca), jwt, TOPIC, str(count), str(size)
        )
        self.assertEqual((err, code), (b"", 0))
        self.assertEqual(list(self.apple.ledger.faults), [])
        return dict(json.loads(out))

    async def test_200_pushes_of_4_kb(self) -> None:
        found = await self.push(None, 200, 4096)
        self.assertEqual(found["statuses"], {"200": 200})
        self.assertEqual(self.apple.ledger.accepted, 200)

    async def test_every_tenth_refused(self) -> None:
        found = await self.push(preset("refuse"), 50)
        self.assertEqual(found["statuses"], {"200": 45, "reset 7": 5})

    async def test_rejections_with_bodies(self) -> None:
        found = await self.push(Orders((Reject(Reason.BAD_DEVICE_TOKEN, When(every=2)),)), 50)
        self.assertEqual((found["statuses"], found["reasons"]), ({"200": 25, "400": 25}, {"BadDeviceToken": 25}))

    async def test_tiny_windows(self) -> None:
        found = await self.push(preset("tiny-windows"), 5, 1000)
        self.assertEqual(found["statuses"], {"200": 5})

    async def test_an_orderly_goaway(self) -> None:
        found = await self.push(preset("goaway"), 40)
        self.assertEqual((found["statuses"]["200"], found["goaways"]), (20, 1))
        self.assertEqual(self.apple.ledger.accepted, 20)


@pytest.mark.skipif(CURL is None, reason="there is no `curl`")
class CurlTests(ServedCase):
    async def test_a_push_by_hand(self) -> None:
        server = self.serve()
        jwt = make_jwt(issued_at=int(time.time())).decode()
        command = ["--silent", "--show-error", "--http2", "--cacert", str(self.ca), "--include", "--data-binary", PAYLOAD.decode()]
        headers = [f"authorization: bearer {jwt}", f"apns-topic: {TOPIC}", "apns-push-type: alert"]
        assert CURL is not None
        out, _, code = await self.run_program(
            CURL,
            *command,
            *(part for header in headers for part in ("--header", header)),
            f"https://localhost:{server.port}/3/device/{TOKEN}",
        )
        self.assertEqual((code, out.split(b"\r\n")[0]), (0, b"HTTP/2 200 "))
        self.assertIn(b"apns-id: ", out)
