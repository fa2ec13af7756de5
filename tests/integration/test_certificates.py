"""Who gets in: what each bad certificate is told, and that it is counted."""

from __future__ import annotations

import datetime as dt

from streampush.cli.pki import CertificateAuthority
from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from tests.integration.harness import NodeTestCase, WireClient, run
from tests.support import authority, device_issued, publisher_issued


class HandshakeTests(NodeTestCase):
    with_bystanders = True

    async def _alert(self, client: WireClient, result: str) -> str:
        await client.closed
        assert client.lost is not None
        await self.counted("streampush_closes_total", code="1010", by="server")
        self.assertEqual(self.metric("streampush_handshakes_total", result=result), 1)
        self.assertEqual(client.messages, [])
        return str(client.lost.value)

    @run
    async def test_no_certificate_gets_an_alert(self) -> None:
        alert = await self._alert(await self.connect(None), "no_certificate")
        self.assertIn("certificate required", alert)

    @run
    async def test_certificate_of_another_ca_gets_an_alert(self) -> None:
        stranger = CertificateAuthority.create("somebody else").issue_device("phone-1")
        alert = await self._alert(await self.connect(stranger), "unknown_ca")
        self.assertIn("unknown ca", alert)

    @run
    async def test_expired_certificate_gets_an_alert(self) -> None:
        old = dt.datetime.now(dt.UTC) - dt.timedelta(days=30)
        alert = await self._alert(await self.connect(authority().issue_device("phone-1", days=1, start=old)), "expired")
        self.assertIn("certificate expired", alert)

    @run
    async def test_tls_1_2_is_refused_by_default(self) -> None:
        client = await self.connect(device_issued("phone-1"), tls12=True)
        await client.closed
        await self.counted("streampush_handshakes_total", result="tls_error")


class Tls12Tests(NodeTestCase):
    settings = ("tls.minimum=1.2",)

    @run
    async def test_tls_1_2_is_served_when_allowed(self) -> None:
        client = await self.connect(device_issued("phone-1"), tls12=True)
        welcome = await client.greet()
        self.assertEqual(welcome.device_id, "phone-1")


class IdentityTests(NodeTestCase):
    with_bystanders = True

    @run
    async def test_identity_and_user_come_from_the_certificate(self) -> None:
        client = await self.connect(device_issued("phone-1", "alice"))
        welcome = await client.greet()
        self.assertEqual((welcome.device_id, welcome.user_id), ("phone-1", "alice"))

    @run
    async def test_another_identity_than_the_certificates_is_forbidden(self) -> None:
        client = await self.connect(device_issued("phone-1"))
        client.send(m.Hello(device_id="phone-2"), 1)
        goaway = await client.expect(m.GoAway)
        self.assertEqual((goaway.code, goaway.advice), (Code.FORBIDDEN, Advice.REAUTHENTICATE))
        await client.closed
        await self.counted("streampush_closes_total", code="3003", by="server")

    @run
    async def test_a_publisher_that_is_not_configured_is_forbidden(self) -> None:
        client = await self.connect(publisher_issued("stranger"))
        goaway = await client.expect(m.GoAway)
        self.assertEqual(goaway.code, Code.FORBIDDEN)
        await client.closed
        self.assertEqual(self.metric("streampush_handshakes_total", result="bad_identity"), 1)

    @run
    async def test_a_certificate_that_names_nobody_is_rejected(self) -> None:
        client = await self.connect(authority().issue_server(["localhost"]))
        await client.closed
        self.assertEqual(self.metric("streampush_handshakes_total", result="ok"), 2)  # the bystanders'
        await self.counted("streampush_handshakes_total", result="bad_certificate")


class ListTests(NodeTestCase):
    def _write_lists(self, *, crl: bool) -> None:
        issued = device_issued("phone-1", "alice")
        (self.root / "revoked.pem").write_bytes(authority().revoke([issued.certificate] if crl else []))
        (self.root / "denied.txt").write_text("" if crl else "# lost\ndevice:phone-1\n")

    async def _with_lists(self, *, crl: bool) -> None:
        self._write_lists(crl=crl)
        await self.restart(f"tls.crl={self.root}/revoked.pem", f"tls.deny_list={self.root}/denied.txt")

    async def _rejected(self, result: str) -> None:
        client = await self.connect(device_issued("phone-1", "alice"))
        goaway = await client.expect(m.GoAway)
        self.assertEqual((goaway.code, goaway.advice), (Code.CERTIFICATE_REJECTED, Advice.RENEW_CERTIFICATE))
        await client.closed
        self.assertEqual(self.metric("streampush_handshakes_total", result=result), 1)
        await self.counted("streampush_closes_total", code="1010", by="server")

    @run
    async def test_revoked_certificate_is_told_to_renew(self) -> None:
        await self._with_lists(crl=True)
        await self._rejected("revoked")

    @run
    async def test_denied_certificate_is_told_to_renew(self) -> None:
        await self._with_lists(crl=False)
        await self._rejected("denied")

    @run
    async def test_others_are_served_while_one_is_denied(self) -> None:
        await self._with_lists(crl=False)
        await self.device("tablet-1", "alice")

    @run
    async def test_reload_closes_who_is_denied_now_and_nobody_else(self) -> None:
        (self.root / "revoked.pem").write_bytes(authority().revoke([]))
        (self.root / "denied.txt").write_text("")
        await self.restart(f"tls.crl={self.root}/revoked.pem", f"tls.deny_list={self.root}/denied.txt")
        phone = await self.device("phone-1", "alice")
        tablet = await self.device("tablet-1", "alice")
        publisher = await self.publisher()
        self._write_lists(crl=True)
        assert self.node is not None
        self.node.node.reload()
        goaway = await phone.expect(m.GoAway)
        self.assertEqual(goaway.code, Code.CERTIFICATE_REJECTED)
        await self.still_delivers(tablet, publisher)
        self.assertEqual(self.metric("streampush_reloads_total", result="ok"), 1)

    @run
    async def test_reload_of_a_broken_file_leaves_the_old_ones_in_force(self) -> None:
        phone = await self.device("phone-1", "alice")
        self.files.server.certificate.write_text("not a certificate")
        assert self.node is not None
        self.node.node.reload()
        self.assertEqual(self.metric("streampush_reloads_total", result="failed"), 1)
        await self.device("tablet-1", "alice")
        self.assertIsNone(phone.lost)

    @run
    async def test_reload_serves_the_new_certificate_to_new_connections(self) -> None:
        renewed = authority().issue_server(["localhost", "127.0.0.1"])
        renewed.write(self.files.server.certificate, self.files.server.key)
        assert self.node is not None
        self.node.node.reload()
        client = await self.connect(device_issued("phone-1"))
        await client.greet()
        assert client.transport is not None
        shown = client.transport.getPeerCertificate()  # type: ignore[attr-defined]
        self.assertEqual(shown.get_serial_number(), renewed.certificate.serial_number)


class ExpiryTests(NodeTestCase):
    @run
    async def test_certificate_that_expires_while_connected_is_told_to_renew(self) -> None:
        # what issue_device adds to the start, less the four seconds that the certificate still has (X.509 has whole seconds)
        start = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5) + dt.timedelta(seconds=4)
        short = authority().issue_device("brief-1", days=0, start=start)
        client = await self.connect(short)
        await client.greet()
        goaway = await client.expect(m.GoAway)
        self.assertEqual((goaway.code, goaway.advice), (Code.CERTIFICATE_REJECTED, Advice.RENEW_CERTIFICATE))
