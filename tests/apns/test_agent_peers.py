"""The agent, and treq over it, against HTTP/2 servers of others: Twisted's, nghttpd and Node's."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as any_reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import FileBodyProducer, ResponseDone, ResponseFailed, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from streampush.apns.agent import H2Agent
from streampush.apns.agent_errors import AnswerNeverCame, BadRequest, BodyFailed, RequestNotSent
from streampush.apns.agent_limits import AgentLimits
from streampush.apns.outcome import Why
from streampush.apns.pool_limits import PoolLimits
from tests.apns.peers.running import NO_NGHTTPD, NO_NODE, start_nghttpd, start_node
from tests.support import authority, server_issued

reactor: Any = any_reactor

CA = authority().issued.certificate_pem
MEGABYTE = 1_000_000


class AgentCase(TestCase):
    timeout = 120

    def agent(self, limits: AgentLimits | None = None) -> H2Agent:
        agent = H2Agent(reactor, trust=CA, limits=limits)
        self.addCleanup(agent.stop)
        return agent

    def treq(self) -> Any:
        return treq.client.HTTPClient(self.agent())


class Echo(Resource):
    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        request.setHeader(b"x-path", request.path)
        return b"got " + request.path

    def render_POST(self, request: Any) -> bytes:
        return bytes(request.content.read())


class TwistedTests(AgentCase):
    """Against twisted.web's Site over TLS; it takes HTTP/2 from stock h2."""

    def url(self, path: str) -> str:
        issued = server_issued()
        options = CertificateOptions(privateKey=issued.key, certificate=issued.certificate, acceptableProtocols=[b"h2"])
        port = reactor.listenTCP(0, TLSMemoryBIOFactory(options, False, Site(Echo())), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"https://localhost:{port.getHost().port}{path}"

    async def test_get_through_treq(self) -> None:
        response = await self.treq().get(self.url("/a/b?c=d"))
        self.assertEqual((response.code, await response.text()), (200, "got /a/b"))
        self.assertEqual(response.original.version, (b"HTTP", 2, 0))
        self.assertEqual(response.headers.getRawHeaders(b"x-path"), [b"/a/b"])

    async def test_post_through_treq(self) -> None:
        response = await self.treq().post(self.url("/"), data=b"x" * MEGABYTE)
        self.assertEqual(await response.content(), b"x" * MEGABYTE)

    async def test_json_through_treq(self) -> None:
        response = await self.treq().post(self.url("/"), json={"a": [1, 2]})
        self.assertEqual(await response.json(), {"a": [1, 2]})

    async def test_many_at_once_share_a_connection(self) -> None:
        agent, url = self.agent(), self.url("/x")
        responses = await DeferredList([agent.request(b"GET", url.encode()) for _ in range(90)])
        bodies = await DeferredList([readBody(response) for _, response in responses])
        self.assertEqual({body for _, body in bodies}, {b"got /x"})
        (figures,) = agent.figures().values()
        self.assertEqual([link.answers for link in figures.links], [90])


class NghttpdTests(AgentCase):
    """Against nghttpd."""

    skip = NO_NGHTTPD

    def url(self, path: str) -> str:
        documents = Path(self.mktemp())
        documents.mkdir(parents=True)
        (documents / "file.txt").write_bytes(b"f" * 300_000)
        return f"https://localhost:{start_nghttpd(self, documents)}{path}"

    async def test_get_through_treq(self) -> None:
        response = await self.treq().get(self.url("/file.txt"))
        self.assertEqual((response.code, len(await response.content())), (200, 300_000))
        self.assertIn(b"nghttpd", response.headers.getRawHeaders(b"server")[0])

    async def test_post_through_treq(self) -> None:
        response = await self.treq().post(self.url("/anything"), data=b"y" * MEGABYTE)
        self.assertEqual((response.code, await response.content()), (200, b"y" * MEGABYTE))

    async def test_what_is_not_there(self) -> None:
        response = await self.treq().get(self.url("/nothing"))
        self.assertEqual(response.code, 404)
        self.assertIn("404", await response.text())


@implementer(IBodyProducer)
class Unmeasured:
    """A body of unknown length, in parts, with pauses."""

    length: Any = UNKNOWN_LENGTH

    def __init__(self, parts: int, size: int) -> None:
        self.paused = 0
        self.stopped = False
        self._left = parts
        self._size = size
        self._running = False
        self._done: Deferred[None] = Deferred()

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self._consumer = consumer
        self.resumeProducing()
        return self._done

    def resumeProducing(self) -> None:
        self._running = True
        while self._running and self._left:
            self._left -= 1
            self._consumer.write(b"u" * self._size)
        if not self._left and not self._done.called and not self.stopped:
            self._done.callback(None)

    def pauseProducing(self) -> None:
        self.paused += 1
        self._running = False

    def stopProducing(self) -> None:
        self.stopped = True
        self._running = False
        self._left = 0


class Slow(Protocol):
    """Reads a body only as long as it is allowed to."""

    def __init__(self) -> None:
        self.size = 0
        self.reason: Failure | None = None
        self.done: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.reason = reason
        self.done.callback(None)


class NodeTests(AgentCase):
    """Against Node's http2."""

    skip = NO_NODE

    async def base(self, max_streams: int = 100) -> str:
        return f"https://localhost:{await start_node(self, max_streams)}"

    async def get(self, agent: Any, url: str, method: bytes = b"GET", **fields: str) -> IResponse:
        headers = Headers({name.replace("_", "-"): [value] for name, value in fields.items()})
        return await agent.request(method, url.encode(), headers)

    def test_it_is_an_agent(self) -> None:
        verifyObject(IAgent, self.agent())

    async def test_bodies_of_known_and_unknown_length(self) -> None:
        agent, base = self.agent(), await self.base()
        measured = FileBodyProducer(BytesIO(b"m" * MEGABYTE))
        response = await agent.request(b"POST", f"{base}/size".encode(), None, measured)
        self.assertEqual(await readBody(response), b"1000000")
        unmeasured = Unmeasured(100, 30_000)
        response = await agent.request(b"POST", f"{base}/size".encode(), None, unmeasured)
        self.assertEqual(await readBody(response), b"3000000")
        self.assertGreater(unmeasured.paused, 3, "the windows of the stream hold the producer back")

    async def test_the_fields_of_a_request(self) -> None:
        agent, base = self.agent(), await self.base()
        fields = {"connection": "close, x-secret", "x_secret": "1", "te": "gzip", "x_two": " b ", "authorization": "bearer abc"}
        response = await self.get(agent, f"{base}/headers", b"GET", **fields)
        seen = json.loads(await readBody(response))
        self.assertEqual(seen[":authority"], base.removeprefix("https://"))
        self.assertEqual((seen["x-two"], seen["authorization"]), ("b", "bearer abc"))
        self.assertFalse({"connection", "x-secret", "te", "host"} & seen.keys())

    async def test_trailers_end_an_answer(self) -> None:
        response = await self.get(self.agent(), await self.base() + "/trailers")
        self.assertEqual(await readBody(response), b"body")

    async def test_a_reader_that_pauses_holds_its_stream_and_no_other(self) -> None:
        agent, base = self.agent(), await self.base()
        held = []
        for _ in range(12):
            response = await self.get(agent, f"{base}/big?3000000")
            reader = Slow()
            response.deliverBody(reader)
            held.append((response, reader))
        other = await self.get(agent, f"{base}/big?2000000")
        self.assertEqual(len(await readBody(other)), 2_000_000)
        self.assertEqual([reader.size for _, reader in held], [0] * 12)
        for _, reader in held:
            reader.transport.resumeProducing()
        await DeferredList([reader.done for _, reader in held])
        self.assertEqual({reader.size for _, reader in held}, {3_000_000})
        self.assertTrue(all(reader.reason is not None and reader.reason.check(ResponseDone) for _, reader in held))

    async def test_a_reader_that_goes_away_resets_its_stream_only(self) -> None:
        agent, base = self.agent(), await self.base()
        response = await self.get(agent, f"{base}/big?100000000")
        reader = Slow()
        response.deliverBody(reader)
        reader.transport.stopProducing()
        await reader.done
        assert reader.reason is not None
        self.assertTrue(reader.reason.check(ResponseFailed))
        self.assertEqual(await readBody(await self.get(agent, f"{base}/count")), b"2")
        (figures,) = agent.figures().values()
        self.assertEqual((len(figures.links), figures.in_flight), (1, 0))

    async def test_cancelling_frees_the_stream(self) -> None:
        agent, base = self.agent(), await self.base(max_streams=1)
        hanging = agent.request(b"GET", f"{base}/hang".encode())
        await readBody(await self.get(self.agent(), f"{base}/count"))
        hanging.cancel()
        with self.assertRaises(CancelledError):
            await hanging
        self.assertEqual((await self.get(agent, f"{base}/count")).code, 200)

    async def test_a_request_that_is_never_answered_ends_in_time(self) -> None:
        agent = self.agent(AgentLimits(answer_timeout=2))
        with self.assertRaises(AnswerNeverCame) as caught:
            await self.get(agent, await self.base() + "/hang")
        self.assertIs(caught.exception.fault.why, Why.NO_ANSWER)

    async def test_a_stream_that_is_reset_is_told(self) -> None:
        with self.assertRaises(AnswerNeverCame) as caught:
            await self.get(self.agent(), await self.base() + "/reset")
        self.assertIn("INTERNAL_ERROR", str(caught.exception))

    async def test_what_is_refused_is_sent_again(self) -> None:
        agent, base = self.agent(), await self.base()
        waiting = [Deferred.fromCoroutine(self.get(agent, f"{base}/refuse-once", x_name=str(n))) for n in range(20)]
        responses = await DeferredList(waiting)
        self.assertEqual([await readBody(response) for _, response in responses], [b"%d" % n for n in range(20)])

    async def test_goaway_costs_nothing(self) -> None:
        agent, base = self.agent(), await self.base()
        await self.get(agent, f"{base}/count")
        waiting = [agent.request(b"GET", f"{base}/slow".encode()) for _ in range(20)]
        waiting.append(agent.request(b"GET", f"{base}/goaway".encode()))
        waiting += [agent.request(b"GET", f"{base}/slow".encode()) for _ in range(20)]
        responses = await DeferredList(waiting, consumeErrors=True)
        self.assertEqual([good for good, _ in responses], [True] * 41)
        bodies = await DeferredList([readBody(response) for _, response in responses])
        self.assertEqual({body for _, body in bodies}, {b"late", b"last"})

    async def test_head_has_no_body(self) -> None:
        response = await self.get(self.agent(), await self.base() + "/big?0", b"HEAD")
        self.assertEqual((response.length, await readBody(response)), (0, b""))

    async def test_a_body_that_is_shorter_than_it_said(self) -> None:
        for size in (1000, MEGABYTE):  # collected, and streamed
            producer = FileBodyProducer(BytesIO(b"x" * size))
            producer.length = size + 1
            with self.assertRaisesRegex(BodyFailed, f"{size} of the {size + 1} bytes"):
                await self.agent().request(b"POST", (await self.base() + "/size").encode(), None, producer)

    async def test_nobody_is_there(self) -> None:
        agent = self.agent(AgentLimits(pool=PoolLimits(connect_patience=0.1)))
        port = reactor.listenTCP(0, Site(Echo()), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        with self.assertRaises(RequestNotSent):
            await self.get(agent, f"https://127.0.0.1:{number}/")

    async def test_the_host_that_was_not_used_longest_makes_room(self) -> None:
        agent = self.agent(AgentLimits(max_hosts=2))
        bases = [await self.base() for _ in range(3)]
        for base in bases:
            await readBody(await self.get(agent, f"{base}/count"))
        self.assertEqual(list(agent.figures()), [base.removeprefix("https://") for base in bases[1:]])

    async def test_when_requests_to_all_hosts_are_under_way_another_is_told_so(self) -> None:
        agent = self.agent(AgentLimits(max_hosts=1))
        hanging = agent.request(b"GET", (await self.base() + "/hang").encode())
        with self.assertRaises(RequestNotSent) as caught:
            await agent.request(b"GET", b"https://localhost:1/")
        self.assertIs(caught.exception.fault.why, Why.QUEUE_FULL)
        hanging.cancel()
        with self.assertRaises(CancelledError):
            await hanging

    async def test_bad_requests_are_refused(self) -> None:
        agent = self.agent()
        for method, uri, headers in (
            (b"GET", b"http://localhost/", None),
            (b"GET", b"https://user:secret@localhost/", None),
            (b"GET", b"https://localhost/a b", None),
            (b"GET", b"https:///nowhere", None),
            (b"G\r\nT", b"https://localhost/", None),
            (b"CONNECT", b"https://localhost/", None),
            (b"GET", b"https://localhost/", Headers({b"x": [b"secret\x00"]})),
            (b"GET", b"https://localhost/", Headers({b"x": [b"y" * 100_000]})),
        ):
            with self.assertRaises(BadRequest) as caught:
                await agent.request(method, uri, headers)
            self.assertNotIn("secret", str(caught.exception))

    async def test_a_stopped_agent_takes_nothing(self) -> None:
        agent = self.agent()
        await agent.stop()
        with self.assertRaises(RequestNotSent):
            await agent.request(b"GET", b"https://localhost/")
