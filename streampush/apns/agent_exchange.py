"""A request of the agent on its way: the upload, the deadline that moves with progress, the response."""

from __future__ import annotations

from math import inf

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse

from streampush.apns.agent_errors import BodyFailed, broken, failure_of
from streampush.apns.agent_limits import AgentLimits
from streampush.apns.exchange import Exchange, Fault
from streampush.apns.http2 import HeaderList, Verdict
from streampush.apns.outcome import Why
from streampush.apns.pool import Pool
from streampush.apns.response import Http2Response, SentRequest
from streampush.apns.upload import Upload

_WITHOUT_BODY = frozenset({204, 304})


class AgentExchange(Exchange):
    """`response`: fires with the IResponse or fails; to cancel it ends the request.

    A body that is known to be short is collected before anything is sent, so that the request can be repeated by itself; a longer
    one, or one of unknown length, is written as the server takes it, and then it cannot.
    """

    __slots__ = (
        "_answer",
        "_clock",
        "_gathered",
        "_held",
        "_limits",
        "_pool",
        "_producer",
        "_read",
        "_received",
        "_request",
        "_timer",
        "_upload",
        "response",
    )

    def __init__(
        self,
        pool: Pool,
        clock: IReactorTime,
        limits: AgentLimits,
        block: bytes,
        request: SentRequest,
        producer: IBodyProducer | None,
    ) -> None:
        super().__init__(block, b"", clock.seconds() + limits.answer_timeout)
        self.response: Deferred[IResponse] = Deferred(self._cancelled)
        self._pool = pool
        self._clock = clock
        self._limits = limits
        self._request = request
        self._producer = producer
        self._upload: Upload | None = None
        self._gathered: list[bytes] = []
        self._answer: Http2Response | None = None
        self._received = 0  # bytes of the answer's body
        self._read = 0  # of them by who reads it
        self._held = False  # the reader pauses
        self._timer: IDelayedCall | None = None  # while the body is collected; then the pool has the deadline

    def submit(self) -> None:
        """Begins; `response` may fail before this returns."""
        producer = self._producer
        if producer is None or producer.length == 0:
            self._pool.submit(self)
        elif isinstance(producer.length, int) and producer.length <= self._limits.gathered_body:
            self._timer = self._clock.callLater(self._limits.answer_timeout, self._collecting_too_long)
            self._upload = Upload(producer, self._gathered.append, self._collected)
            self._upload.start()
        else:
            self.more = True
            self._upload = Upload(producer, self._send, self._sent)
            self._pool.submit(self)

    # ------------------------------------------------------------------------------------------------------------------- upload

    def _collecting_too_long(self) -> None:
        self._timer = None
        self._fail(failure_of(Fault(Verdict.NOT_WRITTEN, Why.DEADLINE, "the producer of the body took too long")))

    def _collected(self, problem: BodyFailed | None) -> None:
        if problem is not None:
            self._fail(problem)
            return
        self._stop_upload()
        self.body = b"".join(self._gathered)
        self._gathered.clear()
        self._pool.submit(self)

    def began(self) -> None:
        if self.more and self.repeatable and self._upload is not None:
            self.repeatable = False  # from here on the producer has given away its bytes
            self._upload.start()

    def resumed(self) -> None:
        self._progress()
        if self._upload is not None:
            self._upload.resume()

    def _send(self, data: bytes) -> None:
        self._progress()
        if self.carrier is not None:
            self.carrier.send_data(self.stream_id, data)
            if self._upload is not None and not self.carrier.writable(self.stream_id):
                self._upload.pause()

    def _sent(self, problem: BodyFailed | None) -> None:
        self._upload = None
        if problem is not None:
            self._pool.cancel(self)
            self._fail(problem)
        elif self.carrier is not None:
            self.carrier.send_data(self.stream_id, b"", True)

    def _stop_upload(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.stop()
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # ------------------------------------------------------------------------------------------------------------------- answer

    def answered(self, headers: HeaderList, ended: bool) -> None:
        if ended:
            self._stop_upload()
        problem = headers.malformed()
        if problem is not None:
            self._break(problem)
            return
        fields = Headers()
        for name, value in headers:
            if not name.startswith(b":"):
                fields.addRawHeader(name, value)
        code = headers.status
        try:
            length = _content_length(fields)
        except ValueError:
            self._break("more than one length, or none that is a number")
            return
        if self._request.method == b"HEAD" or code in _WITHOUT_BODY:
            length = 0
        elif ended and length:
            self._break(f"no body where {length} bytes were announced")
            return
        elif ended:
            length = 0
        self._answer = Http2Response(code, fields, length, self._request, self)
        self._await_body(unclaimed=True)
        if ended:
            self._answer.finish()
        response: IResponse = self._answer
        self.response.callback(response)

    def received(self, data: bytes, ended: bool) -> None:
        answer = self._answer
        if answer is None:
            return
        self._received += len(data)
        if ended:
            self._free_rest()
        length = answer.length if isinstance(answer.length, int) else None
        if length is not None and (self._received > length or (ended and self._received < length)):
            self._break(f"{self._received} bytes of body where {length} were announced")
            return
        if ended:
            self._stop_upload()
        else:
            self._await_body(unclaimed=not answer.claimed)
        answer.take(data)
        if ended:
            answer.finish()

    def trailed(self, headers: HeaderList) -> None:
        if self._answer is None:
            return
        self._free_rest()
        length = self._answer.length
        problem = headers.malformed(trailers=True)
        if problem is None and isinstance(length, int) and self._received < length:
            problem = f"{self._received} bytes of body where {length} were announced"
        if problem is not None:
            self._break(problem)
        else:
            self._stop_upload()
            self._answer.finish()

    def failed(self, fault: Fault) -> None:
        self._fail(failure_of(fault))

    # ------------------------------------------------------------------------------------------------------- for the response

    def body_read(self, size: int) -> None:
        """See BodySource."""
        self._read += size
        if self.carrier is not None:
            self.carrier.consumed(self.stream_id, size)

    def body_held(self, held: bool) -> None:
        """See BodySource."""
        self._held = held
        if held:
            self.deadline = inf  # the reader's matter now
        else:
            self._await_body(unclaimed=False)

    def body_unwanted(self) -> None:
        """See BodySource."""
        self._stop_upload()
        self._pool.cancel(self)

    # ----------------------------------------------------------------------------------------------------------------- its work

    def _progress(self) -> None:
        """The server takes our body; it need not be quick."""
        if self._answer is None:
            self.deadline = self._clock.seconds() + self._limits.answer_timeout

    def _await_body(self, *, unclaimed: bool) -> None:
        if self._held:
            return
        timeout = self._limits.unclaimed_timeout if unclaimed else self._limits.body_timeout
        before = self.deadline
        self.deadline = self._clock.seconds() + timeout
        if self.deadline < before and self.carrier is not None:
            self.carrier.deadline_moved(self.deadline)

    def _free_rest(self) -> None:
        """The stream is over: what its reader has not read yet no longer holds the connection's window."""
        if self.carrier is not None and self._received > self._read:
            self.carrier.consumed(self.stream_id, self._received - self._read)
            self.carrier = None

    def _cancelled(self, _response: Deferred[IResponse]) -> None:
        self._stop_upload()
        self._pool.cancel(self)

    def _break(self, text: str) -> None:
        """The answer is none that HTTP allows."""
        self._pool.cancel(self)
        self._fail(broken(text))

    def _fail(self, problem: Exception) -> None:
        self._stop_upload()
        if self._answer is not None:
            self._answer.finish(problem)
        elif not self.response.called:
            self.response.errback(problem)


def _content_length(fields: Headers) -> int | None:
    """Raises ValueError for what is no length, or several."""
    values = {each.strip() for value in fields.getRawHeaders(b"content-length", []) for each in value.split(b",")}
    if not values:
        return None
    if len(values) > 1:
        raise ValueError("several lengths")
    (value,) = values
    if not value.isdigit() or len(value) > 18:
        raise ValueError("no length")
    return int(value)
