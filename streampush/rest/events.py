"""Server-Sent Events (WHATWG HTML, section 9.2): what becomes of one message, told while it happens.

A stream holds back nothing: it keeps which milestones it has told, and tells what the newest progress has besides. A client that
does not read is told nothing meanwhile, and is cut when that lasts. The id of an event stands for all that was told up to it, so a
client that comes back with it as Last-Event-ID, to whatever node, misses nothing and hears nothing twice.
"""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from streampush.config import RestConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Milestone
from streampush.push.progress import MessageProgress
from streampush.push.watching import Watch, news_of
from streampush.rest import documents
from streampush.rest.http import ApiRequest
from streampush.rest.ports import ReceiptApi, RestMetrics
from streampush.rest.problems import Problem, problem_of

BEAT_INTERVAL = 15.0
"""Seconds between two comment lines, which keep proxies from closing the connection; the message is looked at again then, too."""

STALL_TIMEOUT = 60.0
"""Seconds for which a client may leave its answer unread before it is cut."""

RETRY_MS = 3_000
"""What clients are asked to wait before they connect again."""

MAX_ID_DEVICES = 64
"""Devices that an event's id can stand for; with more, events have no id, and a client that comes back hears them again."""

_DIGEST = 6
_ENTRY = _DIGEST + 2
_ALL = frozenset(Milestone) - {Milestone.UNSPECIFIED}


class Told:
    """What a client has been told of a message: by device, a bit for each milestone."""

    def __init__(self, message_id: str, last_event_id: str = "") -> None:
        self.bits: dict[str, int] = {}
        self._digests: dict[str, bytes] = {}
        self._salt = blake2b(message_id.encode(), digest_size=16).digest()
        self._before = _parsed(last_event_id)

    def meets(self, device_ids: Iterable[str]) -> None:
        """These devices have rows: what an earlier connection was told of them counts."""
        for device_id in device_ids:
            if device_id not in self.bits:
                digest = blake2b(device_id.encode(), digest_size=_DIGEST, key=self._salt).digest()
                self._digests[device_id] = digest
                self.bits[device_id] = self._before.get(digest, 0)

    def add(self, device_id: str, milestone: Milestone) -> None:
        self.bits[device_id] |= 1 << milestone

    def token(self) -> str:
        """All of it as the id of an event; empty if there are too many devices."""
        if len(self.bits) > MAX_ID_DEVICES:
            return ""
        entries = (self._digests[device_id] + bits.to_bytes(2, "big") for device_id, bits in self.bits.items() if bits)
        return urlsafe_b64encode(b"".join(entries)).rstrip(b"=").decode("ascii")


def _parsed(token: str) -> dict[bytes, int]:
    """What `Told.token` gave; empty if it is anything else: then everything is told."""
    if len(token) > _ENTRY * MAX_ID_DEVICES * 4 // 3 + 4:
        return {}
    try:
        data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (binascii.Error, ValueError):
        return {}
    entries = (data[at : at + _ENTRY] for at in range(0, len(data) - len(data) % _ENTRY, _ENTRY))
    return {entry[:_DIGEST]: int.from_bytes(entry[_DIGEST:], "big") for entry in entries}


@implementer(IPushProducer)
class EventStream:
    """One client that listens. Made by EventStreams.open; lives until `run` returns."""

    def __init__(self, streams: EventStreams, request: ApiRequest, message_id: str, key: str, last_event_id: str) -> None:
        self.key = key
        self._streams = streams
        self._request = request
        self._told = Told(message_id, last_event_id)
        self._state = ""
        self._counts: dict[str, int] = {}
        self._latest: MessageProgress | None = None
        self._paused = False
        self._paused_at = 0.0
        self._telling = False
        self._done: Deferred[None] = Deferred()
        clock = streams.clock
        self._began_at = clock.seconds()
        self._beat: IDelayedCall = clock.callLater(BEAT_INTERVAL, self._beats)
        self._watch: Watch | None = None

    def begin(self, message_id: str) -> None:
        """Watches the message. Raises Refused(OVERLOADED)."""
        self._watch = self._streams.receipts.watch(message_id, self)

    async def run(self) -> None:
        """Tells until there is nothing more to tell, or the client has gone (CancelledError)."""
        request: Any = self._request
        request.registerProducer(self, True)
        self._write(f"retry: {RETRY_MS}\n\n")
        try:
            await self._done
        finally:
            if request.channel is not None:
                request.unregisterProducer()
            self.free()

    def free(self) -> None:
        """Nothing of the stream is left. Harmless the second time."""
        if self._beat.active():
            self._beat.cancel()
        if self._watch is not None:
            self._streams.receipts.unwatch(self._watch, self)
            self._watch = None
        self._streams.closed(self)

    # -------------------------------------------------------------------------------------------------------- the message

    def progressed(self, progress: MessageProgress) -> None:
        """See push.watching.Watcher."""
        self._latest = progress
        self._tell()

    def gone(self) -> None:
        """See push.watching.Watcher."""
        self.end("gone")

    def _tell(self) -> None:
        if self._telling or self._done.called:
            return
        self._telling = True
        try:
            while self._latest is not None and not self._paused and not self._done.called:
                progress, self._latest = self._latest, None
                if not self._tell_all(progress) and self._latest is None:
                    self._latest = progress  # goes on when there is room
        finally:
            self._telling = False

    def _tell_all(self, progress: MessageProgress) -> bool:
        """Whether everything new was told; it ends where the client does not keep up."""
        if progress.state.value != self._state:
            self._state = progress.state.value
            self._write(_event("state", {"state": self._state}))
        self._told.meets(row.device_id for row in progress.devices)
        told: Counter[str] = Counter()
        for device_id, milestone, at_ms in news_of(progress, self._told.bits, _ALL):
            if self._paused:
                break
            self._told.add(device_id, milestone)
            told[milestone.name.lower()] += 1
            fields = {"device_id": device_id, "milestone": milestone.name.lower(), "at_ms": at_ms}
            self._write(_event("milestone", fields, self._told.token()))
        for name, number in told.items():
            self._streams.metrics.receipts_told(name, number)
        if self._paused:
            return False
        counts = documents.counts(progress.record.counts)
        if counts != self._counts:
            self._counts = counts
            self._write(_event("counts", counts))
        if progress.ending:
            self.end(progress.ending)
        return True

    def end(self, reason: str) -> None:
        """Says why, and ends. Ending twice is harmless."""
        if not self._done.called:
            self._write(_event("end", {"reason": reason}))
            self._done.callback(None)

    # --------------------------------------------------------------------------------------------------------- the client

    def _write(self, text: str) -> None:
        request: Any = self._request
        request.write(text.encode("utf-8"))

    def _beats(self) -> None:
        streams = self._streams
        now = streams.clock.seconds()
        self._beat = streams.clock.callLater(BEAT_INTERVAL, self._beats)
        if self._paused:
            if now - self._paused_at >= STALL_TIMEOUT:
                self._request.channel.transport.abortConnection()
            return
        self._write(": still here\n\n")
        if now - self._began_at >= streams.max_time:
            self.end("max_time")
        elif self._watch is not None:  # something may have happened on another node
            streams.receipts.look(self._watch)

    def pauseProducing(self) -> None:
        """The client does not read as fast as it is told."""
        self._paused = True
        self._paused_at = self._streams.clock.seconds()

    def resumeProducing(self) -> None:
        """There is room again."""
        self._paused = False
        self._tell()

    def stopProducing(self) -> None:
        """The connection is gone; `run` is told by a cancellation."""
        self._paused = True


class EventStreams:
    """All event streams of the node."""

    def __init__(self, receipts: ReceiptApi, config: RestConfig, clock: IReactorTime, metrics: RestMetrics) -> None:
        self.receipts = receipts
        self.clock = clock
        self.metrics = metrics
        self.max_time = config.max_event_time
        self._max_streams = config.max_event_streams
        self._max_per_key = config.max_event_streams_per_key
        self._open: dict[EventStream, None] = {}
        self._keys: Counter[str] = Counter()
        self._stopping = ""

    def __len__(self) -> int:
        return len(self._open)

    def open(self, request: ApiRequest, message_id: str, key: str) -> EventStream:
        """A stream for a client that was let in. Raises Problem 503 if there are too many, or the node stops."""
        if self._stopping:
            raise Problem(503, self._stopping, code=Code.DRAINING)
        if len(self._open) >= self._max_streams:
            raise Problem(503, f"{self._max_streams} event streams are open on this node", code=Code.OVERLOADED)
        if self._keys[key] >= self._max_per_key:
            raise Problem(503, f"{self._max_per_key} event streams of this key are open", code=Code.OVERLOADED)
        last_event_ids = request.texts("Last-Event-ID")
        stream = EventStream(self, request, message_id, key, last_event_ids[-1] if last_event_ids else "")
        self._open[stream] = None
        self._keys[key] += 1
        self.metrics.event_streams(len(self._open))
        try:
            stream.begin(message_id)
        except Refused as refused:
            stream.free()
            raise problem_of(refused) from refused
        return stream

    def closed(self, stream: EventStream) -> None:
        """The stream is over. Harmless the second time."""
        if stream in self._open:
            del self._open[stream]
            self._keys[stream.key] -= 1
            if not self._keys[stream.key]:
                del self._keys[stream.key]
            self.metrics.event_streams(len(self._open))

    def stop(self, detail: str) -> None:
        """Ends all streams; their clients are asked to come back elsewhere. No new ones are let in."""
        self._stopping = detail
        for stream in list(self._open):
            stream.end("draining")


def _event(name: str, fields: dict[str, Any], event_id: str = "") -> str:
    """An event as text. JSON in ASCII has no line breaks."""
    data = json.dumps(fields, separators=(",", ":"))
    return f"event: {name}\nid: {event_id}\ndata: {data}\n\n" if event_id else f"event: {name}\ndata: {data}\n\n"
