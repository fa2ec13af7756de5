"""The exchanges on one connection: the core's events become their calls, their deadlines end them."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.logger import Logger

from streampush.apns.exchange import Carrier, Exchange, Fault
from streampush.apns.http2 import (
    ClientConnection,
    ConnectionEnded,
    ConnectionFailed,
    DataReceived,
    EndedStreams,
    ErrorCode,
    Event,
    GoneAway,
    PingAnswered,
    RemoteProtocolError,
    ResponseReceived,
    SettingsChanged,
    StreamReset,
    TrailersReceived,
    Verdict,
    WindowOpened,
    error_name,
)
from streampush.apns.outcome import Why

OfConnection = SettingsChanged | PingAnswered | GoneAway | ConnectionFailed | ConnectionEnded
"""Events that are more than one stream's matter."""

_log = Logger()


class Traffic:
    """`carrier`: whom exchanges see. `returned` is told of each exchange that ended without an answer, in place of the exchange
    itself: it decides whether it is sent again. `grain`: seconds, see PoolLimits.deadline_grain.

    `expire_at`: when to call `expire`, or inf. `answers`: how many in all; a refusal counts as one. `exchanges`: what is under way,
    by stream id.
    """

    __slots__ = ("_afterwards", "_carrier", "_core", "_grain", "_returned", "answers", "exchanges", "expire_at")

    def __init__(self, core: ClientConnection, carrier: Carrier, returned: Callable[[Exchange, Fault], None], grain: float) -> None:
        self._core = core
        self._carrier = carrier
        self._returned = returned
        self._grain = grain
        self._afterwards: list[Callable[[], None]] = []
        self.exchanges: dict[int, Exchange] = {}
        self.expire_at = inf
        self.answers = 0

    def send(self, exchange: Exchange) -> int:
        """Begins the exchange, there being room; gives its stream id."""
        more = exchange.more
        stream_id = self._core.request(exchange.block, exchange.body, end_stream=not more)
        self.exchanges[stream_id] = exchange
        exchange.carrier = self._carrier
        exchange.stream_id = stream_id
        exchange.tries += 1
        if exchange.deadline < self.expire_at:
            self.expire_at = exchange.deadline
        if more or exchange.watched:
            exchange.began()
        return stream_id

    def drop(self, exchange: Exchange) -> Verdict | None:
        """The exchange's owner has ended it; nothing is called. None: it was not here."""
        if self.exchanges.get(exchange.stream_id) is not exchange:
            return None
        del self.exchanges[exchange.stream_id]
        exchange.carrier = None
        return self._core.reset(exchange.stream_id)

    def expire(self, now: float) -> bool:
        """Ends what has to end now; gives whether one of them was written, and never answered."""
        until = now + self._grain
        silent = False
        for stream_id in [each for each, exchange in self.exchanges.items() if exchange.deadline <= until]:
            exchange = self.exchanges.pop(stream_id, None)
            verdict = self._core.reset(stream_id) if exchange is not None else None
            if exchange is None or verdict is None:
                continue
            written = verdict is Verdict.UNKNOWN
            silent = silent or written
            text = "no whole answer within the deadline" if written else "not written within the deadline"
            self._return(exchange, Fault(verdict, Why.NO_ANSWER if written else Why.DEADLINE, text))
        self.expire_at = min((exchange.deadline for exchange in self.exchanges.values()), default=inf)
        return silent

    def take(self, events: list[Event]) -> list[OfConnection]:
        """Tells the exchanges; gives the events that are for the connection, after their streams were told."""
        others: list[OfConnection] = []
        try:
            self._tell(events, others)
        finally:
            self._call_afterwards()
        return others

    def afterwards(self, call: Callable[[], None]) -> None:
        """See exchange.Carrier."""
        self._afterwards.append(call)

    def _tell(self, events: list[Event], others: list[OfConnection]) -> None:
        exchanges = self.exchanges
        for event in events:
            if type(event) is ResponseReceived:
                self.answers += 1
                stream_id = event.stream_id
                exchange = exchanges.pop(stream_id, None) if event.ended else exchanges.get(stream_id)
                if exchange is not None:
                    try:
                        exchange.answered(event.headers, event.ended)
                    except Exception as error:  # noqa: BLE001 - of one exchange; the others on the connection go on
                        self._broken(exchange, error)
            elif type(event) is DataReceived:
                stream_id = event.stream_id
                exchange = exchanges.pop(stream_id, None) if event.ended else exchanges.get(stream_id)
                if exchange is not None:
                    try:
                        exchange.received(event.data, event.ended)
                    except Exception as error:  # noqa: BLE001 - as above
                        self._broken(exchange, error)
            else:
                self._take_rare(event, others)

    def _call_afterwards(self) -> None:
        calls = self._afterwards
        while calls:
            try:
                calls.pop()()
            except Exception:  # noqa: BLE001 - a fault of one; the exchanges have their answers
                _log.failure("What was to be done behind answers failed")

    def resume(self, stream_id: int) -> None:
        """There is room for more of its body."""
        exchange = self.exchanges.get(stream_id)
        if exchange is not None:
            try:
                exchange.resumed()
            except Exception as error:  # noqa: BLE001 - as above
                self._broken(exchange, error)

    def _take_rare(self, event: Event, others: list[OfConnection]) -> None:
        if isinstance(event, WindowOpened):
            self.resume(event.stream_id)
        elif isinstance(event, TrailersReceived):
            exchange = self.exchanges.pop(event.stream_id, None)
            if exchange is not None:
                try:
                    exchange.trailed(event.headers)
                except Exception as error:  # noqa: BLE001 - as above
                    self._broken(exchange, error)
        elif isinstance(event, StreamReset):
            self.answers += event.verdict is Verdict.REFUSED
            self._end(event.stream_id, _fault_of_reset(event))
        elif isinstance(event, GoneAway):
            self._end_all(event.streams, Why.GONE_AWAY, f"the server sent GOAWAY ({error_name(event.code)})")
            others.append(event)
        elif isinstance(event, ConnectionFailed):
            why = Why.CONNECTION_LOST if event.code == ErrorCode.NO_ERROR else Why.BAD_ANSWER
            self._end_all(event.streams, why, event.text)
            others.append(event)
        elif isinstance(event, ConnectionEnded):
            self._end_all(event.streams, Why.CONNECTION_LOST, "the connection ended")
            others.append(event)
        elif isinstance(event, SettingsChanged | PingAnswered):
            others.append(event)

    def _end_all(self, streams: EndedStreams, why: Why, text: str) -> None:
        for stream_id, verdict in streams:
            if verdict is Verdict.NOT_WRITTEN:
                self._end(stream_id, Fault(verdict, Why.NOT_WRITTEN, text))
            elif verdict is Verdict.UNKNOWN and why is Why.GONE_AWAY:  # its answer had begun
                self._end(stream_id, Fault(verdict, Why.BAD_ANSWER, text))
            else:
                self._end(stream_id, Fault(verdict, why, text))

    def _end(self, stream_id: int, fault: Fault) -> None:
        exchange = self.exchanges.pop(stream_id, None)
        if exchange is not None:
            self._return(exchange, fault)

    def _return(self, exchange: Exchange, fault: Fault) -> None:
        exchange.carrier = None
        self._returned(exchange, fault)

    def _broken(self, exchange: Exchange, error: Exception) -> None:
        """An exchange could not read its answer, or has a fault of its own; it ends all the same."""
        if not isinstance(error, RemoteProtocolError):
            _log.failure("An exchange failed to take its answer")
        if self.exchanges.pop(exchange.stream_id, None) is not None:
            self._core.reset(exchange.stream_id)
        exchange.repeatable = False
        self._return(exchange, Fault(Verdict.UNKNOWN, Why.BAD_ANSWER, "the answer could not be read"))


def _fault_of_reset(event: StreamReset) -> Fault:
    if event.verdict is Verdict.REFUSED:
        return Fault(event.verdict, Why.REFUSED_STREAM, "the server refused the stream")
    if event.text:
        return Fault(event.verdict, Why.BAD_ANSWER, event.text)
    return Fault(event.verdict, Why.STREAM_RESET, f"the server reset the stream ({error_name(event.code)})")
