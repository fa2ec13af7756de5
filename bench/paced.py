"""Clients that publish at a steady rate and look at each delivery: how long after its publish it was there.

Publisher and devices are in one process and read one clock. A latency holds up to a millisecond of READ_INTERVAL, and the time that
the clients take for the deliveries before it: on one core they share that with nobody, but 1000 deliveries of a message take them
some milliseconds.
"""

from __future__ import annotations

import struct
import time
from array import array
from dataclasses import dataclass

from bench.clients import READ_INTERVAL, Clients, Peer
from bench.credentials import Credentials, device_name
from bench.dialects import LoadError
from bench.report import percentile

MARK = b"\xfepublished at\xfe"
_stamp = struct.Struct(">d")
LEAST_PAYLOAD = len(MARK) + _stamp.size


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds from a publish to its delivery, over all deliveries of a round; the round's messages and seconds; of a device that
    read a backlog meanwhile the messages a second."""

    p50: float
    p99: float
    messages: int
    seconds: float
    read_out: float = 0.0


class PacedClients(Clients):
    """Beside what Clients can do: rounds at a steady rate."""

    def __init__(self, address: tuple[str, int], subject: str, credentials: Credentials) -> None:
        super().__init__(address, subject, credentials)
        self._latencies: array[float] | None = None  # of the round under way

    def paced(self, messages: int, rate: float, ack_every: int, payload: int) -> Latencies:
        """Publishes so many messages to all, `rate` a second, each with so many bytes."""
        return self._round(messages, rate, ack_every, payload, None, 0)

    def beside_backlog(self, messages: int, rate: float, ack_every: int, payload: int, device: int, waiting: int) -> Latencies:
        """The same, while another device connects and reads `waiting` messages; publishes until it has them, and then leaves it."""
        devices = self._ready
        self._subscribe, self._greet, self._once = False, True, False
        peer = self._start(self._credentials.device(device), device_name(device), device, None)
        measured = self._round(messages, rate, ack_every, payload, peer, waiting)
        if peer.deliveries != waiting:
            raise LoadError(f"{peer.deliveries} of {waiting} waiting messages came")
        self._forget(peer)
        self._ready = devices
        return measured

    def _round(self, messages: int, rate: float, ack_every: int, payload: int, reader: Peer | None, waiting: int) -> Latencies:
        followers = sum(1 for peer in self._peers.values() if peer is not self._publisher and peer is not reader)
        self._begin(ack_every, b"")
        self._latencies = latencies = array("d")
        began_at = time.monotonic()
        published, read_at = 0, 0.0
        while published < messages or (reader is not None and not read_at):
            due_at = began_at + published / rate
            while (early := due_at - time.monotonic()) > 0:
                time.sleep(min(READ_INTERVAL, early))
                self._poll(0)
                if reader is not None and not read_at and reader.deliveries >= waiting:
                    read_at = time.monotonic()
            stamp = MARK + _stamp.pack(time.monotonic())
            self._publish(self._dialect.broadcast(stamp.ljust(payload, b".")))
            published += 1
        self._wait(published * followers + waiting, published)
        seconds = time.monotonic() - began_at
        self._latencies = None
        if len(latencies) != published * followers:
            raise LoadError(f"{len(latencies)} deliveries of {published} messages to {followers} devices")
        p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
        return Latencies(p50, p99, published, seconds, waiting / (read_at - began_at) if read_at else 0.0)

    def _verify(self, peer: Peer, frame: bytes) -> None:
        """In a round: not verified, so that it is asked for each delivery; but for those of a backlog."""
        if self._latencies is None:
            super()._verify(peer, frame)
            return
        at = frame.find(MARK)
        if at < 0:
            peer.verified = True
        else:
            self._latencies.append(time.monotonic() - _stamp.unpack_from(frame, at + len(MARK))[0])
