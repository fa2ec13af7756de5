"""The container's health check against a node, over plain HTTP and over TLS."""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

from tests.deploy.files import DEPLOY
from tests.integration.harness import NodeTestCase, run

CHECK = DEPLOY / "container" / "healthcheck.py"


class HealthcheckTests(NodeTestCase):
    async def check(self, **environment: str) -> tuple[str, int]:
        arguments = (sys.executable, ["-X", "dev", str(CHECK)], environment)
        output, errors, status = await getProcessOutputAndValue(*arguments, reactor=reactor)  # type: ignore[arg-type]
        self.assertEqual(errors, b"")
        return output.decode(), status

    @run
    async def test_a_node_that_answers_is_healthy(self) -> None:
        assert self.node is not None
        address = f"http://127.0.0.1:{self.node.rest_port}/healthz"
        self.assertEqual(await self.check(STREAMPUSH_HEALTH=address), (f"200 {address}\n", 0))

    @run
    async def test_a_node_with_tls_is_healthy_if_its_certificate_is_trusted(self) -> None:
        await self.restart("rest.certificate=server.crt", "rest.key=secrets/server.key")
        assert self.node is not None
        address = f"https://localhost:{self.node.rest_port}/healthz"
        trusted = await self.check(STREAMPUSH_HEALTH=address, STREAMPUSH_HEALTH_CA=str(self.files.ca))
        self.assertEqual(trusted, (f"200 {address}\n", 0))
        output, status = await self.check(STREAMPUSH_HEALTH=address)
        self.assertEqual(status, 1)
        self.assertIn("CERTIFICATE_VERIFY_FAILED", output)

    @run
    async def test_a_node_that_is_gone_is_not(self) -> None:
        assert self.node is not None
        address = f"http://127.0.0.1:{self.node.rest_port}/healthz"
        await self.stop()
        output, status = await self.check(STREAMPUSH_HEALTH=address)
        self.assertEqual((status, output.startswith(f"{address}: ")), (1, True))

    @run
    async def test_an_address_that_is_no_web_address_is_refused(self) -> None:
        output, status = await self.check(STREAMPUSH_HEALTH="file:///etc/passwd")
        self.assertEqual((status, "must begin with http" in output), (1, True))
