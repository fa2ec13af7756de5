"""A node behind a real HAProxy that runs the example of deploy/, and behind nothing where it expects one."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path
from shutil import which

from twisted.internet import reactor, ssl
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectError

from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from tests.apns.peers.running import PeerProcess, start
from tests.integration.harness import NodeTestCase, WireClient, run
from tests.support import authority, device_issued

HAPROXY = which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
EXAMPLE = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"

BEHIND_A_PROXY = (
    "listen.proxy_protocol=v2",
    "listen.proxy_from=127.0.0.1",
    "rest.certificate=server.crt",
    "rest.key=secrets/server.key",
)


class UnproxiedTests(NodeTestCase):
    settings = BEHIND_A_PROXY

    @run
    async def test_device_that_comes_past_the_proxy_is_refused(self) -> None:
        client = await self.connect(device_issued("phone-1", "alice"))
        await client.closed
        await self.counted("streampush_refused_connections_total", reason="proxy_header")
        self.assertEqual(self.metric("streampush_handshakes_total", result="not_tls"), 0)

    @run
    async def test_device_is_refused_before_a_byte_is_read_where_no_proxy_is_expected_from_it(self) -> None:
        await self.restart("listen.proxy_protocol=v2", "listen.proxy_from=192.0.2.0/24")
        with contextlib.suppress(ConnectError):  # the reset comes at once
            await (await self.connect_plain()).closed
        await self.counted("streampush_refused_connections_total", reason="not_a_proxy")


class HaproxyTests(NodeTestCase):
    if HAPROXY is None:
        skip = "there is no `haproxy`: install the package haproxy"
    elif sys.platform != "linux":
        skip = "loopback has one address only"

    settings = BEHIND_A_PROXY

    async def proxy(self, check: str = "") -> None:
        """HAProxy with the example, which differs in addresses and in the pace of its checks, or in the check itself."""
        assert HAPROXY is not None
        assert self.node is not None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.proxy_port = int(free.getsockname()[1])
        check = check or f"check port {self.node.rest_port} check-ssl verify none inter 500ms"
        text = EXAMPLE.read_text()
        for ours, example in (
            (f"bind 127.0.0.1:{self.proxy_port}", "bind :7443"),
            (f"server node-1 127.0.0.1:{self.node.port}", "server node-1 10.77.0.11:7443"),
            (f"server node-2 127.0.0.1:{self.node.port}", "server node-2 10.77.0.12:7443"),
            (check, "check port 7480 check-ssl verify none inter 2s"),
            ("maxconn 1000", "maxconn 100000"),
        ):
            self.assertEqual(text.count(example), 1, example)
            text = text.replace(example, ours)
        path = self.root / "haproxy.cfg"
        path.write_text(text)
        self.haproxy: PeerProcess = start(self, [HAPROXY, "-db", "-f", path])
        self.said = b""
        self.haproxy.outReceived = self.haproxy.errReceived = self._hear  # type: ignore[method-assign]
        await self.until(self._is_checked)

    def _is_checked(self) -> bool:
        asked = self.metric("streampush_rest_requests_total", status="200")
        return asked + self.metric("streampush_proxy_checks_total") > 0

    def _hear(self, data: bytes) -> None:
        self.said += data

    async def through(self, source: str, device_id: str) -> WireClient:
        """A device at this address, which the proxy lets through."""
        trust = ssl.Certificate.loadPEM(authority().issued.certificate_pem)
        issued = device_issued(device_id, "alice")
        identity = ssl.PrivateCertificate.loadPEM(issued.certificate_pem + issued.key_pem)
        options = ssl.optionsForClientTLS("localhost", trust, identity)
        tcp = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy_port, bindAddress=(source, 0))
        client: WireClient = await connectProtocol(wrapClientTLS(options, tcp), WireClient())
        self.clients.append(client)
        return client

    @run
    async def test_node_sees_the_devices_own_addresses_and_serves_them(self) -> None:
        await self.proxy()
        phone = await self.through("127.0.0.2", "phone-1")
        tablet = await self.through("127.0.0.3", "tablet-1")
        for client in (phone, tablet):
            await client.greet()
        assert self.node is not None
        hosts = {c.principal.name: c.host for c in self.node.node.connections if c.principal is not None}
        self.assertEqual(hosts, {"phone-1": "127.0.0.2", "tablet-1": "127.0.0.3"})
        self.assertEqual(self.node._parts.admission.addresses, 2)

    @run
    async def test_limit_of_an_address_holds_behind_the_proxy(self) -> None:
        await self.restart(*BEHIND_A_PROXY, "admission.max_per_address=1")
        await self.proxy()
        phone = await self.through("127.0.0.2", "phone-1")
        await phone.greet()
        await (await self.through("127.0.0.2", "phone-2")).closed
        tablet = await self.through("127.0.0.3", "tablet-1")
        await tablet.greet()
        self.assertEqual(self.metric("streampush_refused_connections_total", reason="address_limit"), 1)

    @run
    async def test_checks_by_a_connect_are_no_connections(self) -> None:
        await self.proxy("check inter 20ms")
        await self.until(lambda: self.metric("streampush_proxy_checks_total") > 10)
        refused = [
            sample.value
            for family in self.node.registry.collect()  # type: ignore[union-attr]
            for sample in family.samples
            if sample.name in ("streampush_refused_connections_total", "streampush_handshakes_total")
        ]
        self.assertEqual(set(refused), {0})

    @run
    async def test_proxy_takes_a_draining_node_out(self) -> None:
        await self.proxy()
        phone = await self.through("127.0.0.2", "phone-1")
        await phone.greet()
        assert self.node is not None
        self.node._parts.draining.reason = "it is drained"
        await self.until(lambda: b"has no server available" in self.said)
        self.assertIn(b"Layer7 wrong status, code: 503", self.said)
        with contextlib.suppress(ConnectError):  # no node is left: the proxy itself closes
            await (await self.through("127.0.0.3", "tablet-1")).closed
        phone.send(m.Ping(), 9)  # who is connected stays
        await phone.expect(m.Pong)
        self.assertEqual(self.metric("streampush_handshakes_total", result="ok"), 1)

    @run
    async def test_device_that_comes_to_a_draining_node_is_told_when_to_come_back(self) -> None:
        await self.proxy()
        assert self.node is not None
        self.node._parts.admission.draining = True
        phone = await self.through("127.0.0.2", "phone-1")
        goaway = await phone.expect(m.GoAway)
        self.assertEqual(goaway.code, Code.DRAINING)
        await phone.closed
