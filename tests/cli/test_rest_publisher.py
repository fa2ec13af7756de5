"""Publishing over REST against an HTTP server on loopback whose answers are written down here."""

from __future__ import annotations

import base64
import json
import tempfile
from typing import Any

from twisted.internet import ssl
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from streampush.cli.exits import BadCredentials, Failure, NoConnection
from streampush.cli.outgoing import Outgoing, PublishRefused, Sent
from streampush.cli.rest_client import MAX_REPLY_BYTES
from streampush.cli.rest_publisher import RestPublisher
from streampush.protocol.codes import Advice, Code
from streampush.protocol.terms import Priority
from streampush.push.values import Alert
from tests.support import authority, make_files

REPLY = {"message_id": "m-1", "channel": "news", "offset": 7, "epoch": "e", "durability": "MEMORY", "connections": 2}


class Scripted(Resource):
    """Answers everything with one status and body, and keeps what it was asked. `hang_up`: ends the connection instead."""

    isLeaf = True

    def __init__(self, status: int, body: bytes, *, hang_up: bool = False) -> None:
        super().__init__()
        self._answer = (status, body)
        self._hang_up = hang_up
        self.paths: list[bytes] = []
        self.keys: list[str | None] = []
        self.bodies: list[Any] = []

    def render_POST(self, request: Request) -> bytes | int:
        self.paths.append(request.path)
        self.keys.append(request.getHeader("authorization"))
        self.bodies.append(json.loads(request.content.read()))
        if self._hang_up:
            request.transport.abortConnection()
            return NOT_DONE_YET
        status, body = self._answer
        request.setResponseCode(status)
        return body


class RestPublisherTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.files = make_files(directory.name, devices=(), publishers=())

    def serve(self, resource: Resource, *, tls: bool = False) -> str:
        """The URL of a server with this resource."""
        site = Site(resource)
        if tls:
            context = ssl.DefaultOpenSSLContextFactory(str(self.files.server.key), str(self.files.server.certificate))
            port = self.reactor.listenSSL(0, site, context, interface="127.0.0.1")
        else:
            port = self.reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http{'s' if tls else ''}://127.0.0.1:{port.getHost().port}"

    def publisher(self, url: str, ca_pem: bytes = b"") -> RestPublisher:
        publisher = RestPublisher(self.reactor, url, "sp_secret", ca_pem)
        self.addCleanup(publisher.close)
        return publisher

    async def answer(self, status: int, reply: Any, message: Outgoing | None = None) -> Sent:
        body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        return await self.publisher(self.serve(Scripted(status, body))).publish(message or Outgoing("news", b"x"))

    async def test_a_message_goes_out_whole_with_the_key(self) -> None:
        resource = Scripted(200, json.dumps(REPLY).encode())
        message = Outgoing("news", b"\x00\xff", "text/x", {"a": "b"}, 5.0)
        sent = await self.publisher(self.serve(resource)).publish(message)
        self.assertEqual(sent, Sent("m-1", "news", 7, 2, epoch="e", durability="MEMORY"))
        self.assertEqual((resource.paths, resource.keys), ([b"/v1/publish"], ["Bearer sp_secret"]))
        payload = base64.b64encode(b"\x00\xff").decode()
        expected = {"channel": "news", "payload_base64": payload, "content_type": "text/x", "headers": {"a": "b"}, "ttl": 5.0}
        self.assertEqual(resource.bodies, [expected])

    async def test_every_wish_has_its_field(self) -> None:
        resource = Scripted(200, json.dumps(REPLY).encode())
        message = Outgoing(
            "news",
            b"x",
            expires_at_ms=2,
            deliver_at_ms=1,
            priority=Priority.HIGH,
            collapse_key="c",
            version=3,
            want_receipt=True,
            clear_on_processed=True,
            idempotency_key="k",
            alert=Alert("t", badge=0, custom='{"a":1}', fallback_after_ms=1_250),
        )
        await self.publisher(self.serve(resource)).publish(message)
        expected = {
            "expires_at": 2,
            "deliver_at": 1,
            "priority": "HIGH",
            "collapse_key": "c",
            "version": 3,
            "want_receipt": True,
            "clear_on_processed": True,
            "idempotency_key": "k",
            "alert": {"title": "t", "badge": 0, "custom": {"a": 1}, "fallback_after": 1.25},
        }
        self.assertEqual(resource.bodies, [{"channel": "news", "payload_base64": "eA=="} | expected])

    async def test_what_became_of_it_is_taken_over(self) -> None:
        sent = await self.answer(200, REPLY | {"duplicate": True, "superseded": True, "deliver_at": 9})
        self.assertEqual((sent.duplicate, sent.superseded, sent.deliver_at_ms), (True, True, 9))

    async def test_what_was_not_asked_for_is_not_sent(self) -> None:
        resource = Scripted(200, json.dumps(REPLY).encode())
        await self.publisher(self.serve(resource)).publish(Outgoing("news", b""))
        self.assertEqual(resource.bodies, [{"channel": "news", "payload_base64": ""}])

    async def test_several_messages_go_over_kept_connections(self) -> None:
        publisher = self.publisher(self.serve(Scripted(200, json.dumps(REPLY).encode())))
        for _ in range(3):
            self.assertEqual((await publisher.publish(Outgoing("news", b"x"))).offset, 7)

    async def test_a_server_with_a_certificate_of_the_ca_is_trusted(self) -> None:
        url = self.serve(Scripted(200, json.dumps(REPLY).encode()), tls=True)
        sent = await self.publisher(url, authority().issued.certificate_pem).publish(Outgoing("news", b"x"))
        self.assertEqual(sent.offset, 7)

    async def test_a_server_with_another_certificate_is_not(self) -> None:
        url = self.serve(Scripted(200, json.dumps(REPLY).encode()), tls=True)
        publisher = self.publisher(url, authority("another CA").issued.certificate_pem)
        with self.assertRaises(BadCredentials) as caught:
            await publisher.publish(Outgoing("news", b"x"))
        self.assertEqual(str(caught.exception), f"{url}: the server's certificate is not accepted")

    async def test_a_problem_with_a_code_is_a_refusal_with_its_advice(self) -> None:
        problem = {"title": "Forbidden", "detail": "no right to publish there", "code": 3003}
        with self.assertRaises(PublishRefused) as caught:
            await self.answer(403, problem)
        refused = caught.exception
        self.assertEqual((refused.code, refused.advice, refused.retry_after), (Code.FORBIDDEN, Advice.REAUTHENTICATE, 0.0))
        self.assertEqual(refused.detail, "no right to publish there")

    async def test_when_to_try_again_is_taken_over(self) -> None:
        with self.assertRaises(PublishRefused) as caught:
            await self.answer(429, {"detail": "too fast", "code": 3001, "retry_after": 1.5})
        self.assertEqual(caught.exception.retry_after, 1.5)

    async def test_an_unknown_code_is_a_refusal_too(self) -> None:
        with self.assertRaises(PublishRefused) as caught:
            await self.answer(400, {"detail": "new", "code": 3999})
        self.assertEqual((caught.exception.code, caught.exception.advice), (3999, Advice.UNSPECIFIED))

    async def test_an_unknown_key_is_a_credentials_fault_that_does_not_show_it(self) -> None:
        with self.assertRaises(BadCredentials) as caught:
            await self.answer(401, {"detail": "unknown key"})
        self.assertNotIn("sp_secret", str(caught.exception))

    async def test_an_answer_of_another_kind_of_server_is_named(self) -> None:
        with self.assertRaisesRegex(Failure, "the server answers 502: HTTP status 502"):
            await self.answer(502, b"<html>Bad Gateway</html>")

    async def test_a_success_without_its_fields_is_no_success(self) -> None:
        with self.assertRaisesRegex(Failure, "answers like no streampush server"):
            await self.answer(200, [])

    async def test_an_endless_answer_is_given_up(self) -> None:
        with self.assertRaisesRegex(Failure, "longer than 1048576 bytes"):
            await self.answer(200, b" " * (MAX_REPLY_BYTES + 1))

    async def test_nobody_there_is_named_with_the_address(self) -> None:
        port = self.reactor.listenTCP(0, Site(Resource()), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        with self.assertRaises(NoConnection) as caught:
            await self.publisher(f"http://127.0.0.1:{number}").publish(Outgoing("news", b"x"))
        self.assertIn(f"http://127.0.0.1:{number}: ", str(caught.exception))
        self.assertIn("refused", str(caught.exception))

    async def test_a_connection_that_ends_early_is_named(self) -> None:
        url = self.serve(Scripted(200, b"", hang_up=True))
        with self.assertRaises(NoConnection) as caught:
            await self.publisher(url).publish(Outgoing("news", b"x"))
        self.assertEqual(str(caught.exception), f"{url}: the connection ended before the answer")
