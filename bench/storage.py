"""A big store: how long a start takes with 1 GiB in it, and how much memory a server has with 1 000 000 channels.

The files are filled before the servers start. A start lasts from the process to the first /readyz that says 200; "cold" with the
file out of the system's cache, so that it comes from the disk. Memory is looked at when the server has published to so many
channels and read each of them, beside a server with an empty store that has done the same.
"""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from bench.arena import Arena, Contender, arena, options_of
from bench.clients import READ_SIZE, STALL_SECONDS, client_context
from bench.credentials import Credentials
from bench.dialects import LoadError
from bench.filling import ROOMY, Filling
from bench.report import OURS, Report, ratios
from bench.servers import START_SECONDS, free_port, start
from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.framing import FrameDecoder, encode_frame
from streampush.protocol.terms import Start

MIB = 1024 * 1024
BIG_PAYLOAD = 4096
PER_CHANNEL = 256
AT_ONCE = 500
"""Requests that wait for their replies together, and channels that one connection follows."""

EMPTY = "empty store"


def channel_name(index: int) -> str:
    return f"bench/{index:07d}"


def slices(channels: int) -> list[range]:
    """So many channels, AT_ONCE at a time."""
    return [range(at, min(at + AT_ONCE, channels)) for at in range(0, channels, AT_ONCE)]


class Dialogue:
    """A connection that asks, and waits for the replies; slow, for what is not measured."""

    def __init__(self, address: tuple[str, int], certificate: Path) -> None:
        raw = socket.create_connection(address, STALL_SECONDS)
        self._sock = client_context(certificate).wrap_socket(raw)
        self._decoder = FrameDecoder()
        self._deliveries = 0
        self._replies = 0
        self.ask([m.Hello(app="bench", app_version="1", sdk="bench", sdk_version="1", receive_window_messages=65536)])

    def ask(self, requests: Iterable[m.Message], deliveries: int = 0) -> None:
        """Sends requests, and waits for a reply to each and for so many deliveries. Raises LoadError for a refusal."""
        frames = [encode_frame(codec.encode(request, number)) for number, request in enumerate(requests, 1)]
        self._sock.sendall(b"".join(frames))
        while self._replies < len(frames) or self._deliveries < deliveries:
            data = self._sock.recv(READ_SIZE)
            if not data:
                raise LoadError("the server has closed the connection")
            for frame in self._decoder.feed(data):
                self._take(frame)
        self._replies = self._deliveries = 0

    def _take(self, frame: object) -> None:
        if not isinstance(frame, bytes):
            raise LoadError("a damaged frame")
        request_id, message = codec.decode(frame)
        if isinstance(message, m.Error | m.GoAway) or (isinstance(message, m.Subscribed) and message.code):
            raise LoadError(f"{type(message).__name__}: {message.code} {message.detail}")
        if isinstance(message, m.Ping):
            self._sock.sendall(encode_frame(codec.encode(m.Pong(), request_id)))
        elif isinstance(message, m.Delivery):
            self._deliveries += 1
        elif isinstance(message, m.PublishOk | m.Welcome) or (isinstance(message, m.Subscribed) and request_id):
            self._replies += 1

    def close(self) -> None:
        self._sock.close()


class Visitors:
    """A publisher and a device that go from channel to channel; the commands of a load process."""

    def __init__(self, address: tuple[str, int], subject: str, credentials: Credentials) -> None:
        self._address = address
        self._credentials = credentials

    def publish(self, channels: int, payload: bytes) -> int:
        """One message to each."""
        publisher = Dialogue(self._address, self._credentials.publisher)
        for some in slices(channels):
            publisher.ask(m.Publish(channel_name(index), payload) for index in some)
        publisher.close()
        return channels

    def read(self, channels: int, in_each: int) -> int:
        """Everything that is in each of them."""
        for some in slices(channels):
            device = Dialogue(self._address, self._credentials.device(0))
            device.ask((m.Subscribe(channel_name(index), start=Start.EARLIEST) for index in some), len(some) * in_each)
            device.close()
        return channels


def started(ring: Arena, path: Path, *, cold: bool) -> float:
    """Seconds from the start of a process to a server that is ready. Raises LoadError."""
    if cold:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    port = free_port()
    settings = {"store": {"path": str(path), **ROOMY}, "rest": {"port": port}}
    began_at = time.monotonic()
    with start(OURS, ring.credentials, ring.cores.server, settings=settings) as server:
        while time.monotonic() - began_at < START_SECONDS:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
            try:
                connection.request("GET", "/readyz")
                if connection.getresponse().status == http.HTTPStatus.OK:
                    return time.monotonic() - began_at
            except ConnectionRefusedError:
                pass
            finally:
                connection.close()
            time.sleep(0.005)
        raise LoadError(f"not ready after {START_SECONDS:g} s:\n{server.explain()}")


def starts(report: Report, ring: Arena, mebibytes: int, rounds: int) -> None:
    """The lines of starting."""
    size = f"{mebibytes} MiB"
    full, empty = ring.credentials.root / "full.db", ring.credentials.root / "empty.db"
    messages = mebibytes * MIB // BIG_PAYLOAD
    with Filling(full) as filling:
        for at in range(0, messages, PER_CHANNEL):
            filling.append(channel_name(at // PER_CHANNEL), bytes(BIG_PAYLOAD), min(PER_CHANNEL, messages - at))
    with Filling(empty):
        pass
    for cold in (False, True):
        samples: dict[str, list[float]] = {size: [], EMPTY: []}
        for _ in range(rounds):
            for name, path in ((size, full), (EMPTY, empty)):
                samples[name].append(started(ring, path, cold=cold))
        for name, values in samples.items():
            report.result("start until ready", name, "s", values, cold=cold)
        report.ratio("start until ready", size, EMPTY, ratios(samples[size], samples[EMPTY]), cold=cold)
    full.unlink()


def visited(ring: Arena, path: Path, channels: int, in_each: int) -> tuple[float, float, float]:
    """Memory of a server at its start and when it has published to channels and read them, and CPU seconds of that a channel."""
    with ExitStack() as own:
        here = Arena(ring.credentials, ring.cores, own, ring.servers)
        contender: Contender = here.enter(OURS, settings={"store": {"path": str(path), **ROOMY}}, clients=Visitors)
        before_cpu, before = contender.server.settled_cpu(), contender.server.memory()
        contender.load.call("publish", channels=channels, payload=bytes(128))
        contender.load.call("read", channels=channels, in_each=in_each)
        seconds = contender.server.settled_cpu() - before_cpu
        return before, contender.server.memory(), seconds / channels


def memories(report: Report, ring: Arena, channels: int, visits: int, rounds: int) -> None:
    """The lines of memory."""
    size = f"{channels} channels"
    samples: dict[str, list[tuple[float, float, float]]] = {size: [], EMPTY: []}
    for at in range(rounds):
        full, empty = (ring.credentials.root / f"{name}-{at}.db" for name in ("channels", "none"))
        for path, count in ((full, channels), (empty, 0)):
            with Filling(path) as filling:
                filling.append_each(map(channel_name, range(count)), bytes(128))
        for name, path in ((size, full), (EMPTY, empty)):
            samples[name].append(visited(ring, path, visits, in_each=1 + (path == full)))
        full.unlink()
    for name, each in samples.items():
        report.result("memory at the start", name, "MiB", [before / MIB for before, _, _ in each], visited=visits)
        report.result("memory after publishing and reading", name, "MiB", [after / MIB for _, after, _ in each], visited=visits)
        report.result("CPU of publishing and reading", name, "us", [seconds * 1e6 for _, _, seconds in each], visited=visits)
    quotients = ratios([after for _, after, _ in samples[size]], [after for _, after, _ in samples[EMPTY]])
    report.ratio("memory after publishing and reading", size, EMPTY, quotients, visited=visits)


def main(arguments: list[str] | None = None) -> None:
    sizes = (
        ("--mebibytes", 1024, "size of the store that is started with"),
        ("--channels", 1_000_000, "channels of the store that is visited"),
        ("--visits", 10_000, "channels that are published to and read"),
        ("--visit-rounds", 1, "servers of each kind that are visited"),
    )
    options = options_of("storage", __doc__, 3, *sizes).parse_args(arguments)
    report = Report("storage")
    with arena(1) as ring:
        starts(report, ring, options.mebibytes, options.rounds)
        memories(report, ring, options.channels, options.visits, options.visit_rounds)


if __name__ == "__main__":
    main()
