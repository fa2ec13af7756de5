"""HTTP/1.1 with bounds: Twisted's channel, request and site, made strict.

What Twisted does otherwise, and we must not: it reads a body of any size before it asks anybody, and puts large ones into
temporary files on the reactor's thread; its timeout begins anew with every byte; it names itself and its version; its
own errors are HTML.

A refused request is answered as soon as its fault is known. The connection then takes what still comes and drops it for a
moment (a close with unread bytes would reset the connection, and the client would not see the answer), and closes.
"""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, datetimeToString
from twisted.web.http import Request as HTTPRequest
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from streampush.rest.intake import Intake
from streampush.rest.ports import RestMetrics
from streampush.rest.problems import Answer, Problem, Streamed, unexpected

if TYPE_CHECKING:
    from streampush.rest.events import EventStreams

LINGER = 2.0
"""Seconds for which a refused client may go on sending before it is cut, and in which one that makes room may take its last
answer."""

FIRST_REQUEST = 0.5
"""Seconds that a connection has for its request when another process takes over: it may have been opened the moment before."""

LAST_ANSWER = 5.0
"""Seconds that requests under way have then."""


class ApiChannel(HTTPChannel):
    """A connection. The time for a request runs from its first byte to its last; idle connections have as much again."""

    site: ApiSite
    transport: Any  # its interface lacks abortConnection

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated
        self._counted = False
        self._between_requests = True
        self._has_answered = False
        self._given_up = False
        self._linger: IDelayedCall | None = None

    def connectionMade(self) -> None:
        if not self.site.enter(self):
            self.transport.abortConnection()
            return
        self._counted = True
        super().connectionMade()  # type: ignore[no-untyped-call]  # not annotated

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # not annotated
        self._release()
        self.site.leaving.discard(self)
        if self._linger is not None and self._linger.active():
            self._linger.cancel()

    def _release(self) -> None:
        if self._counted:
            self._counted = False
            self.site.leave(self)

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return self._between_requests

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        if self.site.is_leaving:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            return False
        return bool(super().checkPersistence(request, version))  # type: ignore[no-untyped-call]  # not annotated

    def cut(self) -> None:
        """Makes room for another connection at once. An answer that was just written still goes out: what was done for it may be
        a push, which the client would ask for again."""
        self._release()
        if not (self._has_answered and self._between_requests and self.site.may_linger()):
            self.transport.abortConnection()
            return
        self.site.leaving.add(self)
        self.loseConnection()  # type: ignore[no-untyped-call]  # not annotated
        self._linger = self.site.reactor.callLater(LINGER, self.transport.abortConnection)

    def resetTimeout(self) -> None:
        if self._between_requests:
            self._between_requests = False
            super().resetTimeout()  # type: ignore[no-untyped-call]  # not annotated

    def allContentReceived(self) -> None:
        self.site.waiting.pop(self, None)
        super().allContentReceived()  # type: ignore[no-untyped-call]  # not annotated

    def requestDone(self, request: Request) -> None:
        self._between_requests = self._has_answered = True
        if self._counted:
            self.site.waiting[self] = None
        super().requestDone(request)  # type: ignore[no-untyped-call]  # not annotated

    def timeoutConnection(self) -> None:
        if self.requests:
            self.requests[-1].refuse(Problem(408, "the request was not complete in time"))
        super().timeoutConnection()  # type: ignore[no-untyped-call]  # not annotated

    def dataReceived(self, data: bytes) -> None:
        if not self._given_up:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # not annotated

    def lineLengthExceeded(self, line: bytes) -> None:
        self._give_up(Problem(400, "a line of the request's head is too long"))

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted's own answer to what is no HTTP has neither body nor count. (The name is private there; tests hold us to it.)"""
        self._give_up(Problem(400, "the request is not HTTP/1.1"))

    def _give_up(self, problem: Problem) -> None:
        """Answers, if that can still be done, and closes; nothing behind it could be understood."""
        if self._given_up:
            return  # the rest of what was read at once
        self._given_up = True
        if not (self.requests and self.requests[-1].answered):
            answer = problem.answer()
            lines = [b"HTTP/1.1 %d %s" % (answer.status, _phrase(answer.status)), b"Connection: close"]
            lines += [b"%s: %s" % header for header in _headers(answer)]
            self.transport.write(b"\r\n".join([*lines, b"", answer.body]))
            self.site.metrics.rest_request(answer.status, 0.0)
        self.loseConnection()  # type: ignore[no-untyped-call]  # not annotated


class ApiRequest(Request):
    """A request whose body is bounded while it comes, and whose every answer, good or bad, is ours."""

    channel: Any  # an ApiChannel, or None when it is gone; Twisted has annotated little of it
    content: Any

    def __init__(self, channel: ApiChannel, *arguments: Any, **named: Any) -> None:
        super().__init__(channel, *arguments, **named)  # type: ignore[no-untyped-call]  # not annotated
        self._intake = channel.site.intake
        self._clock = channel.site.reactor
        self._metrics = channel.site.metrics
        self._size = 0
        self._refused = False
        self._linger: IDelayedCall | None = None

    # ------------------------------------------------------------------------------------------------------------ receiving

    def texts(self, name: str) -> list[str]:
        """The values of a header, in the order in which they came; each byte is a character (RFC 9110 section 5.5)."""
        return [value.decode("latin-1") for value in self.requestHeaders.getRawHeaders(name.encode("ascii"), [])]

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        self.notifyFinish().addBoth(self._ended)
        try:
            self._intake.begin(length, self.texts("Authorization"), self.texts("Content-Type"))
        except Problem as problem:
            self.refuse(problem)

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        try:
            self._intake.fits(self._size + len(data))
            self._intake.take(len(data))
        except Problem as problem:
            self.refuse(problem)
            return
        self._size += len(data)
        self.content.write(data)

    def body(self) -> bytes:
        """The whole body."""
        body: bytes = self.content.getvalue()
        return body

    def query(self) -> bytes:
        """What stands behind the `?` of the request's target, as it was sent."""
        uri: bytes = self.uri
        return uri.partition(b"?")[2]

    @property
    def answered(self) -> bool:
        """Whether an answer is out, or on its way."""
        return bool(self._refused or self.startedWriting)

    def refuse(self, problem: Problem) -> None:
        """Answers before the request is complete; the connection closes. Refusing twice is harmless."""
        if self.answered:
            return
        self._refused = True
        self._drop_body()
        self.requestHeaders.removeHeader("Expect")  # or the channel would ask for the body now
        answer = problem.answer()
        headers = Headers()
        for name, value in _headers(answer):
            headers.setRawHeaders(name, [value])
        headers.setRawHeaders("Connection", ["close"])
        self.channel.writeHeaders(b"HTTP/1.1", b"%d" % answer.status, _phrase(answer.status), headers)
        self.channel.write(answer.body)
        self._linger = self._clock.callLater(LINGER, self.channel.transport.abortConnection)
        self._metrics.rest_request(answer.status, 0.0)

    def _drop_body(self) -> None:
        self._intake.give_back(self._size)
        self._size = 0
        self.content = BytesIO()

    def _ended(self, result: object) -> None:
        """Answered, or the connection is gone."""
        self._intake.give_back(self._size)
        self._size = 0
        if self._linger is not None and self._linger.active():
            self._linger.cancel()

    # ------------------------------------------------------------------------------------------------------------ answering

    def process(self) -> None:
        if self._refused:
            self.channel.loseConnection()
            return
        self.site = self.channel.site
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        try:
            b"/".join([self.method, *self.postpath]).decode("utf-8")
        except UnicodeDecodeError:
            self.finish_with(Problem(400, "the path is not UTF-8").answer())
            return
        if self.path.startswith(b"//"):  # the router would take it for a path with one slash; a proxy's rules would not
            self.finish_with(Problem(404, "there is nothing at this path").answer())
            return
        try:
            self.render(self.site.resource)  # type: ignore[no-untyped-call]  # not annotated
        except Exception:  # noqa: BLE001 - the last owner of the request: logs it and answers
            self.processingFailed(Failure())  # type: ignore[no-untyped-call]  # not annotated

    def getRequestHostname(self) -> bytes:
        """Whatever the client says: no answer depends on it, and the router would fail on a name that is none."""
        return b"localhost"

    def processingFailed(self, reason: Failure) -> Failure:
        self._log.failure("a request failed", failure=reason)
        if self.channel is not None and not self.finished:
            if self.startedWriting:
                self.channel.loseConnection()
            else:
                self.finish_with(unexpected().answer())
        return reason

    def prepare(self, answer: Answer) -> bytes:
        """Sets status and headers; gives the body, which is to be written."""
        self.setResponseCode(answer.status)
        for name, value in _headers(answer):
            self.setHeader(name, value)  # type: ignore[no-untyped-call]  # not annotated
        return answer.body

    def finish_with(self, answer: Answer) -> None:
        """Answers at once."""
        self._metrics.rest_request(answer.status, 0.0)
        self.write(self.prepare(answer))  # type: ignore[no-untyped-call]  # not annotated
        self.finish()  # type: ignore[no-untyped-call]  # not annotated


def _headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    headers = {
        "Date": datetimeToString().decode("ascii"),  # type: ignore[no-untyped-call]  # not annotated
        "Content-Type": answer.content_type,
        **({} if isinstance(answer, Streamed) else {"Content-Length": str(len(answer.body))}),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **answer.headers,
    }
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]


def _phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode("ascii")


class ApiSite(Site):
    """The factory of connections. `timeout` in seconds, for a request to become complete."""

    _log = Logger()
    noisy = False  # where it listens the service says
    protocol = ApiChannel  # type: ignore[assignment]  # Twisted's negotiates HTTP/2; any channel will do

    def __init__(
        self, resource: IResource, intake: Intake, metrics: RestMetrics, clock: IReactorTime, timeout: float, streams: EventStreams
    ) -> None:
        super().__init__(resource, requestFactory=ApiRequest, timeout=timeout, reactor=clock)  # type: ignore[no-untyped-call]  # not annotated
        self.intake = intake
        self.metrics = metrics
        self.streams = streams
        self.waiting: dict[ApiChannel, None] = {}
        """Connections that wait for their client, not for us; the longest first."""
        self.leaving: set[ApiChannel] = set()
        """Connections that have made room and are not counted any more, with an answer on its way."""
        self.is_leaving = False
        """Each answer is the last of its connection: the next one is another process's."""
        self._open: set[ApiChannel] = set()
        self._left_at = 0.0
        self._all_gone: Deferred[None] | None = None

    def enter(self, channel: ApiChannel) -> bool:
        """Whether a new connection is let in. When there are too many, the one that has waited longest for its client is cut for
        it: whoever opens connections and says nothing must not shut out those who ask, health checks least of all."""
        if not self.intake.connect():
            longest = next(iter(self.waiting), None)
            self.metrics.rest_refused_connection()
            self._log.warn(
                "{peer}: HTTP connection cut, {limit} are open",
                peer=str((longest or channel).transport.getPeer()),
                limit=self.intake.max_connections,
            )
            if longest is None:
                return False
            longest.cut()
            self.intake.connect()
        self.waiting[channel] = None
        self._open.add(channel)
        return True

    def may_linger(self) -> bool:
        """Whether one more may have time for its last answer."""
        return len(self.leaving) < self.intake.max_connections

    def leave(self, channel: ApiChannel) -> None:
        """A connection that was let in is gone."""
        self.waiting.pop(channel, None)
        self._open.discard(channel)
        self.intake.disconnect()
        if self._all_gone is not None and not self._open:
            gone, self._all_gone = self._all_gone, None
            gone.callback(None)

    def begin_leaving(self) -> None:
        """Another process accepts from now on: clients are told so with each answer, and connect again."""
        self.is_leaving = True
        self._left_at = self.reactor.seconds()

    def finish(self) -> Deferred[None]:
        """Fires when nobody is connected any more. Who asks nothing is cut, FIRST_REQUEST seconds behind `begin_leaving` at the
        earliest; who waits for an answer gets it, for LAST_ANSWER seconds."""
        if not self._open:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._all_gone = done
        wait = max(0.0, self._left_at + FIRST_REQUEST - self.reactor.seconds())
        calls = [self.reactor.callLater(wait, self._cut_idle), self.reactor.callLater(wait + LAST_ANSWER, self._cut_all)]

        def over(result: None) -> None:
            for call in calls:
                if call.active():
                    call.cancel()

        return done.addCallback(over)

    def _cut_idle(self) -> None:
        for channel in tuple(self._open):
            if channel.is_idle:
                channel.cut()

    def _cut_all(self) -> None:
        for channel in tuple(self._open):
            channel.cut()

    def acceptableProtocols(self) -> list[bytes]:
        """Only what is bounded here, also if an HTTP/2 library happens to be installed."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """No access log: requests are counted, failures logged. (Twisted's would wake up every second for its clock.)"""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: HTTPRequest) -> None:
        """No access log."""
