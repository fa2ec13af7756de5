"""Frames a second of streampush's decoder and of Twisted's `Int32StringReceiver`: whole, in small chunks, and one big frame.

Ours checks length and CRC-32 and can resynchronise; Twisted's only cuts. CPU time of this process; the two take turns.
"""

from __future__ import annotations

import argparse
import struct
import time
from collections.abc import Callable
from functools import partial

from twisted.protocols.basic import Int32StringReceiver

from bench.arena import take_turns
from bench.naive import MAX_STRING
from bench.report import NAIVE, OURS, Report, ratios
from streampush.protocol.framing import MAX_FRAME_LIMIT, FrameDecoder, encode_frame

PAYLOAD = 128
CHUNKS = (("whole", 0), ("64 KiB", 65536), ("1 KiB", 1024), ("16 B", 16), ("1 B", 1))
BIG_CHUNK = 1024
KIB = 1024


class Cutter(Int32StringReceiver):
    """Counts what Twisted's receiver cuts."""

    MAX_LENGTH = MAX_STRING

    def __init__(self) -> None:
        self.strings = 0

    def stringReceived(self, string: bytes) -> None:
        self.strings += 1


def run_ours(chunks: list[bytes]) -> int:
    feed = FrameDecoder(MAX_FRAME_LIMIT).feed
    return sum(len(feed(chunk)) for chunk in chunks)


def run_naive(chunks: list[bytes]) -> int:
    cutter = Cutter()
    receive: Callable[[bytes], None] = cutter.dataReceived
    for chunk in chunks:
        receive(chunk)
    return cutter.strings


def frame_ours(payload: bytes) -> bytes:
    return encode_frame(payload)


def frame_naive(payload: bytes) -> bytes:
    return struct.pack("!I", len(payload)) + payload


Subject = tuple[Callable[[bytes], bytes], Callable[[list[bytes]], int]]
SUBJECTS: dict[str, Subject] = {OURS: (frame_ours, run_ours), NAIVE: (frame_naive, run_naive)}


def cut(frame: bytes, count: int, chunk: int) -> list[bytes]:
    """`count` times the frame in chunks of so many bytes; 0: a frame a chunk."""
    if not chunk:
        return [frame] * count
    stream = frame * count
    return [stream[at : at + chunk] for at in range(0, len(stream), chunk)]


def seconds(run: Callable[[list[bytes]], int], chunks: list[bytes], frames: int) -> float:
    """CPU time of one run. Raises RuntimeError if it did not find every frame."""
    began = time.process_time()
    found = run(chunks)
    taken = time.process_time() - began
    if found != frames:
        raise RuntimeError(f"{found} frames decoded, {frames} expected")
    return taken


def small_frames(report: Report, frames: int, rounds: int) -> None:
    payload = bytes(range(PAYLOAD))
    for label, chunk in CHUNKS:
        count = frames if chunk != 1 else max(1, frames // 10)  # a call a byte is slow, and says as much with fewer
        work: dict[str, Callable[[], float]] = {}
        for name, (frame, run) in SUBJECTS.items():
            work[name] = partial(seconds, run, cut(frame(payload), count, chunk), count)
        samples = take_turns(work, rounds)
        facts = {"chunk": label, "payload": PAYLOAD, "frames": count}
        for name, taken in samples.items():
            report.result("decode", name, "frames/s", [count / each for each in taken], **facts)
        report.ratio("decode CPU", OURS, NAIVE, ratios(samples[OURS], samples[NAIVE]), **facts)


def big_frames(report: Report, sizes: tuple[int, int], rounds: int) -> None:
    """Cost per byte of one frame in 1 KiB chunks: level when linear, growing with the size when quadratic."""
    work: dict[str, Callable[[], float]] = {}
    for size in sizes:  # all sizes in one turn, or a change of the machine's speed would look like growth
        for name, (frame, run) in SUBJECTS.items():
            often = max(1, 8 * 1024 * KIB // size) if name == OURS else 1
            work[f"{name} {size}"] = partial(_ns_per_byte, run, cut(frame(bytes(size)), 1, BIG_CHUNK), size, often)
    samples = take_turns(work, rounds)
    small, large = sizes
    for name in SUBJECTS:
        for size in sizes:
            report.result("decode big frame", name, "ns/byte", samples[f"{name} {size}"], frame_kib=size // KIB, chunk="1 KiB")
        growth = ratios(samples[f"{name} {large}"], samples[f"{name} {small}"])
        report.ratio("decode linearity", f"{name} {large // KIB} KiB", f"{small // KIB} KiB per byte", growth)


def _ns_per_byte(run: Callable[[list[bytes]], int], chunks: list[bytes], size: int, repeats: int) -> float:
    return sum(seconds(run, chunks, 1) for _ in range(repeats)) / repeats / size * 1e9


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.decoder", description=__doc__)
    parser.add_argument("--frames", type=int, default=50_000, help="frames of 128 bytes a run")
    parser.add_argument("--big", type=int, default=1024, help="KiB of the big frame; it is compared with a quarter of it")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    report = Report("decoder")
    small_frames(report, options.frames, options.rounds)
    big_frames(report, (options.big * KIB // 4, options.big * KIB), options.rounds)


if __name__ == "__main__":
    main()
