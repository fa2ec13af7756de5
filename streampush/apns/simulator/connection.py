"""One connection of the simulated Apple: the HTTP/2 of `wire`, the decisions of `judging`, the misbehaviour of `book`.

Bytes in, bytes out, time as input. The owner passes on what comes, writes `outbound()` after every call, calls `tick` at
`deadline`, reads only while `reading`, and ends the transport as `ending` says, behind what is outbound.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from heapq import heappop, heappush
from itertools import count
from typing import Final

from streampush.apns.http2.errors import ErrorCode
from streampush.apns.http2.windows import DEFAULT_WINDOW
from streampush.apns.simulator.accounts import token_hash
from streampush.apns.simulator.answers import endless_headers, make_answer, reason_body
from streampush.apns.simulator.book import Beginning, OrderBook, Plan
from streampush.apns.simulator.judging import Judge, Provider, Verdict
from streampush.apns.simulator.orders import (
    ALL_STREAMS,
    Close,
    EndlessHeaders,
    Flood,
    FloodOf,
    Freeze,
    Garbage,
    GoAway,
    HugeHeaders,
    OddAnswer,
    RefuseStream,
    Reject,
    RequestOrder,
    ResetStream,
    Stall,
    StopReading,
    UnusualAnswer,
)
from streampush.apns.simulator.records import ClientFault, Ledger, Processed
from streampush.apns.simulator.validation import Request
from streampush.apns.simulator.wire import ServerWire
from streampush.apns.simulator.wire_events import Broken, Completed, Opened, WireEvent

_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Ending(Enum):
    """How the transport is to end."""

    CLOSE = "close"
    RESET = "reset"


class AppleConnection:
    """See the module. `now` of all methods in seconds of one steady clock. `number`: from 1."""

    def __init__(
        self,
        beginning: Beginning,
        judge: Judge,
        book: OrderBook,
        ledger: Ledger,
        provider: Provider,
        now: float,
        *,
        max_streams: int,
        on_processed: Callable[[Processed, bytes], None] | None = None,
    ) -> None:
        self.number = beginning.number
        self.ending: Ending | None = None
        self.reading = True
        self._beginning = beginning
        self._judge = judge
        self._book = book
        self._ledger = ledger
        self._provider = provider
        self._max_streams = max_streams
        self._on_processed = on_processed
        self._requests = 0
        self._last_request_at = now
        self._last_processed = 0
        self._plans: dict[int, Plan] = {}
        self._frozen = False
        self._draining = False
        self._windows_due = False
        self._cold = beginning.one_stream is not None
        self._timers: list[tuple[float, int, Callable[[float], None]]] = []
        self._timer_ids = count()
        self._wire = self._make_wire()
        if beginning.go_away is not None:
            self._wire.go_away(0, beginning.go_away.code, reason_body(beginning.go_away.reason))
            self.ending = Ending.CLOSE
        age = beginning.age
        if age is not None:
            self._at(now + age.seconds, lambda then: self._drain(reason_body(age.reason), age.linger, then))
        if beginning.idle is not None:
            self._at(now + beginning.idle.seconds, self._check_idle)

    def _make_wire(self) -> ServerWire:
        first, tiny = self._beginning.one_stream, self._beginning.tiny_windows
        return ServerWire(
            max_streams=first.streams if first is not None else self._max_streams,
            window=tiny.window if tiny is not None else DEFAULT_WINDOW,
            hold_windows=tiny is not None and tiny.pause > 0,
            use_table=self._beginning.use_table,
            start=self._beginning.go_away is None and not self._beginning.http11,
        )

    # ------------------------------------------------------------------------------------------------------------ for the owner

    @property
    def speaks_http2(self) -> bool:
        """Whether ALPN may agree on `h2`."""
        return not self._beginning.http11

    @property
    def deadline(self) -> float | None:
        """When `tick` is to be called; None: not needed."""
        return self._timers[0][0] if self._timers and self.ending is None else None

    @property
    def open_streams(self) -> int:
        """Requests without a whole answer."""
        return self._wire.open_streams

    def show_certificate(self, topics: tuple[str, ...]) -> None:
        """The client showed a certificate for these bundle ids; with it no provider token is needed."""
        self._provider.topics = topics

    def receive(self, data: bytes, now: float) -> None:
        """Bytes from the client."""
        if self._deaf():
            return
        if self._beginning.http11:
            self._wire.write_raw(_BAD_REQUEST)
            self.ending = Ending.CLOSE
            return
        for event in self._wire.receive(data):
            self._event(event, now)
            if self._deaf():
                break
        tiny = self._beginning.tiny_windows
        if tiny is not None and tiny.pause and not self._windows_due:
            self._windows_due = True
            self._at(now + tiny.pause, self._open_windows)
        self._drained()

    def tick(self, now: float) -> None:
        """Does what is due."""
        while self._timers and self._timers[0][0] <= now and self.ending is None:
            heappop(self._timers)[2](now)
        self._drained()

    def outbound(self) -> bytes:
        """Takes what is to be written."""
        data = self._wire.outbound()
        return b"" if self._frozen else data

    def _deaf(self) -> bool:
        return self._frozen or not self.reading or self.ending is not None

    # ----------------------------------------------------------------------------------------------------------------- requests

    def _event(self, event: WireEvent, now: float) -> None:
        if isinstance(event, Opened):
            self._opened(event, now)
        elif isinstance(event, Completed):
            plan = self._plans.pop(event.stream_id, None)
            if plan is not None:
                self._completed(event, plan, now)
        elif isinstance(event, Broken):
            self._broken(event)
        else:
            self._plans.pop(event.stream_id, None)

    def _broken(self, event: Broken) -> None:
        self._plans.pop(event.stream_id, None)
        if event.code is ErrorCode.REFUSED_STREAM:
            self._ledger.over_limit += 1
            return
        self._ledger.faults.append(ClientFault(self.number, event.stream_id, event.code.name, event.text))
        if not event.stream_id:
            self.ending = Ending.CLOSE

    def _opened(self, event: Opened, now: float) -> None:
        self._requests += 1
        self._ledger.requests += 1
        self._last_request_at = now
        plan = self._book.begin_request(self._requests)
        if isinstance(plan.ending, RefuseStream):
            self._wire.reset(event.stream_id, ErrorCode.REFUSED_STREAM)
        else:
            self._plans[event.stream_id] = plan
        for order in plan.events:
            if isinstance(order, GoAway):
                self._go_away(order, now)
            elif isinstance(order, Freeze):
                self._frozen = True
            elif isinstance(order, StopReading):
                self.reading = False
            elif isinstance(order, Flood):
                self._flood(event.stream_id, order)

    def _flood(self, stream_id: int, order: Flood) -> None:
        if order.what is FloodOf.RST_STREAM and self._plans.pop(stream_id, None) is not None:
            self._wire.reset(stream_id, ErrorCode.REFUSED_STREAM)
        self._wire.write_raw(self._book.flood(order, stream_id))

    def _completed(self, event: Completed, plan: Plan, now: float) -> None:
        request = Request(event.fields, event.body, event.size)
        close = next((order for order in plan.events if isinstance(order, Close)), None)
        if close is not None:
            if close.processed:
                self._process(event.stream_id, request, now)
            self.ending = Ending.RESET if close.reset else Ending.CLOSE
            return
        answer = self._decide(event.stream_id, request, plan, now)
        if answer is None:
            return
        if plan.delay > 0:
            self._at(now + plan.delay, answer)
        else:
            answer(now)

    def _decide(self, stream_id: int, request: Request, plan: Plan, now: float) -> Callable[[float], None] | None:
        """What is to be done when it is time to answer; None: nothing at all. The push is processed at once, or never."""
        ending = plan.ending
        if isinstance(ending, Stall | ResetStream):
            if ending.processed:
                self._process(stream_id, request, now)
            return None if isinstance(ending, Stall) else lambda _: self._wire.reset(stream_id, ending.code)
        if isinstance(ending, OddAnswer):
            fields = [(b":status", b"%d" % ending.status), (b"content-type", ending.content_type.encode())]
            return lambda _: self._wire.respond(stream_id, fields, ending.body)
        if isinstance(ending, EndlessHeaders):
            return lambda _: self._write_last(endless_headers(stream_id, ending))
        if isinstance(ending, Garbage):
            return lambda _: self._write_last(self._book.garbage(ending.size))
        if isinstance(ending, Reject):
            verdict = self._judge.reject(ending.reason, request, ending.ago, ending.retry_after, now)
            self._record(stream_id, request, verdict, now)
        else:
            verdict = self._process(stream_id, request, now)
        return lambda then: self._answer(stream_id, verdict, ending, then)

    def _process(self, stream_id: int, request: Request, now: float) -> Verdict:
        verdict = self._judge.judge(request, self._provider, now)
        self._record(stream_id, request, verdict, now)
        return verdict

    def _record(self, stream_id: int, request: Request, verdict: Verdict, now: float) -> None:
        self._last_processed = max(self._last_processed, stream_id)
        self._adapt_limit(verdict, now)
        push = verdict.push
        processed = Processed(
            apns_id=verdict.apns_id,
            token_hash=token_hash(verdict.target),
            topic=push.topic if push is not None else "",
            push_type=push.push_type if push is not None else "",
            collapse_id=push.collapse_id if push is not None else "",
            payload_size=request.size,
            connection=self.number,
            stream_id=stream_id,
            at=now,
            status=verdict.status,
            reason=verdict.reason.word if verdict.reason is not None else "",
            kind=verdict.kind,
        )
        self._ledger.add(processed)
        if self._on_processed is not None:
            self._on_processed(processed, request.body)

    def _adapt_limit(self, verdict: Verdict, now: float) -> None:
        """How many requests the client may have under way depends on how good they are, if that is ordered."""
        if self._cold and verdict.authorised:
            self._cold = False
            self._wire.change_limit(self._max_streams)
        drop = self._beginning.drop_limit
        if drop is not None and verdict.reason is not None and not self._cold:
            self._wire.change_limit(drop.streams)
            self._at(now + drop.seconds, lambda _: self._wire.change_limit(self._max_streams))

    # ------------------------------------------------------------------------------------------------------------------ answers

    def _answer(self, stream_id: int, verdict: Verdict, ending: RequestOrder | None, now: float) -> None:
        filler = ending.size if isinstance(ending, HugeHeaders) else 0
        unique_id = self._judge.unique_id(verdict.apns_id)
        fields, body = make_answer(verdict, unique_id, date=self._judge.date(now), filler=filler)
        if isinstance(ending, UnusualAnswer):
            self._wire.respond_unusually(stream_id, tuple(fields), body)
        else:
            self._wire.respond(stream_id, fields, body)

    def _write_last(self, data: bytes) -> None:
        self._wire.write_raw(data)
        self._wire.mute()

    # ----------------------------------------------------------------------------------------------------------- the connection

    def _go_away(self, order: GoAway, now: float) -> None:
        debug = reason_body(order.reason)
        if order.code:
            self._wire.go_away(self._last_processed, order.code, debug)
            self.ending = Ending.CLOSE
        elif order.twice:
            self._wire.go_away(ALL_STREAMS, 0, debug)
            self._at(now + order.pause, lambda then: self._drain(debug, order.linger, then))
        else:
            self._drain(debug, order.linger, now)

    def _drain(self, debug: bytes, linger: float, now: float) -> None:
        """The last GOAWAY: what came up to now is answered, then the connection closes."""
        if not self._draining:
            self._draining = True
            self._wire.go_away(self._wire.last_opened, 0, debug)
            self._at(now + linger, lambda _: self._close())

    def _drained(self) -> None:
        if self._draining and not self._wire.open_streams and self.ending is None:
            self._close()

    def _close(self) -> None:
        self.ending = Ending.CLOSE

    def _check_idle(self, now: float) -> None:
        idle = self._beginning.idle
        if idle is None or self._draining:
            return
        due = self._last_request_at + idle.seconds
        if now >= due and not self._wire.open_streams:
            self._drain(reason_body("IdleTimeout"), 0.0, now)
        else:
            self._at(max(due, now + idle.seconds / 2), self._check_idle)

    def _open_windows(self, now: float) -> None:
        self._windows_due = False
        self._wire.open_windows()

    def _at(self, when: float, action: Callable[[float], None]) -> None:
        heappush(self._timers, (when, next(self._timer_ids), action))
