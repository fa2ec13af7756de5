"""`streampush decode`: captured bytes of one direction of a connection, explained frame by frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from struct import unpack_from
from typing import Any, BinaryIO

import click

from streampush.cli.exits import Failure
from streampush.protocol import codec
from streampush.protocol.codes import CODES, Code
from streampush.protocol.errors import RemoteProtocolError
from streampush.protocol.framing import (
    DEFAULT_MAX_FRAME,
    DEFAULT_MAX_RESYNC_BYTES,
    FRAME_OVERHEAD,
    HEADER_SIZE,
    MAX_FRAME_LIMIT,
    Damage,
    FrameDecoder,
    encode_frame,
)

_HEX = re.compile(rb"(?:0[xX])?[0-9A-Fa-f\s:]*")
_DUMP = re.compile(rb"\s*(0{4}[ \t]|0{6,7}|0{8}[ \t]|0{8,16}:)[ \t]+[0-9A-Fa-f]{2}")
"""How the dumps of tshark, od, hexdump and xxd begin: with offset 0, apart from what follows more than digits are."""
_SECRET = ("payload", "token", "headers")


@click.command(short_help="Explain captured bytes frame by frame.")
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "hex", "binary"]),
    default="auto",
    show_default=True,
    help="How the bytes are given.",
)
@click.option(
    "--max-frame", type=click.IntRange(1, MAX_FRAME_LIMIT), default=DEFAULT_MAX_FRAME, show_default=True, help="As the receiver's."
)
@click.option(
    "--show-payload", is_flag=True, help="Show payloads, headers and push tokens, which are private, instead of their sizes."
)
def decode(file: BinaryIO, form: str, max_frame: int, show_payload: bool) -> None:
    """Explain captured bytes of FILE (default: standard input), one direction of a connection, without TLS.

    Exit status 1 if anything in them is damaged.
    """
    raw = file.read()
    data = _read(raw, form)
    if not data:
        raise Failure("nothing to decode")
    damaged = 0
    frames = 0
    for part in split(data, max_frame):
        lines = _explain(part, show_payload)
        click.echo(f"{part.offset:#08x}  {lines[0]}")
        for line in lines[1:]:
            click.echo(f"          {line}")
        frames += part.payload is not None
        damaged += part.payload is None or lines[0].endswith(_NO_ENVELOPE)
    click.echo(f"{len(data)} bytes, good frames: {frames}, damages: {damaged}")
    if damaged:
        if not frames or _DUMP.match(raw):
            click.echo(_hint(raw), nl=False, err=True)
        raise click.exceptions.Exit(1)


def _hint(raw: bytes) -> str:
    """A line on what was given in place of frames, if that can be seen."""
    if _DUMP.match(raw):
        return "hint: this looks like text, not frames: a dump with offsets; give the bytes alone, as `xxd -p` writes them\n"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return ""
    if _HEX.fullmatch(raw.strip()) or not all(char.isprintable() or char.isspace() for char in text):
        return ""
    return "hint: this looks like text, not frames; give captured bytes, or their hex digits alone\n"


def _read(raw: bytes, form: str) -> bytes:
    if form == "binary" or (form == "auto" and not _HEX.fullmatch(raw.strip())):
        return raw
    digits = re.sub(rb"[\s:]", b"", raw).removeprefix(b"0x").removeprefix(b"0X")
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError as error:
        wrong = "the input is not hex digits in pairs; for raw bytes give --format binary"
        raise click.UsageError(f"{wrong}\n{_hint(raw)}".rstrip()) from error


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the stream: a good frame with its `payload`, or bytes that are none, with what is wrong in `detail`."""

    offset: int
    size: int
    payload: bytes | None = None
    code: Code | None = None
    detail: str = ""


def split(data: bytes, max_frame: int = DEFAULT_MAX_FRAME, max_resync_bytes: int = DEFAULT_MAX_RESYNC_BYTES) -> list[Part]:
    """The whole of `data` in parts, as the decoder of a connection sees it."""
    decoder = FrameDecoder(max_frame, max_resync_bytes)
    parts: list[Part] = []
    lost: tuple[int, Damage] | None = None
    at = 0
    for item in decoder.feed(data):
        if isinstance(item, bytes):
            start = at
            if lost is not None:  # a scan ends at the first good frame, so the first place of these bytes is the one
                start = data.index(encode_frame(item), at)
                parts.append(Part(lost[0], start - lost[0], None, lost[1].code, lost[1].detail))
                lost = None
            parts.append(Part(start, len(item) + FRAME_OVERHEAD, item))
            at = start + len(item) + FRAME_OVERHEAD
        elif item.code is Code.CHECKSUM_MISMATCH:
            size = unpack_from(">I", data, at)[0] + FRAME_OVERHEAD
            parts.append(Part(at, size, None, item.code, item.detail))
            at += size
        else:
            lost = (at, item)
    if at < len(data):
        parts.append(_rest(data, at, lost, decoder.failure))
    return parts


def _rest(data: bytes, at: int, lost: tuple[int, Damage] | None, failure: RemoteProtocolError | None) -> Part:
    """What is behind the last frame."""
    size = len(data) - at
    if lost is not None:
        behind = f"; {failure.detail}" if failure is not None else "; no frame found behind it"
        return Part(at, size, None, lost[1].code, lost[1].detail + behind)
    if failure is not None:
        return Part(at, size, None, failure.code, failure.detail)
    if size < HEADER_SIZE:
        return Part(at, size, None, None, "the capture ends inside a length")
    whole = unpack_from(">I", data, at)[0] + FRAME_OVERHEAD
    return Part(at, size, None, None, f"the capture ends inside a frame, {size} of its {whole} bytes are here")


_NO_ENVELOPE = "no Envelope"


def _explain(part: Part, show_payload: bool) -> list[str]:
    if part.payload is None:
        code = f"{int(part.code)} {CODES[part.code].meaning}: " if part.code is not None else ""
        return [f"{part.size} bytes, {code}{part.detail}"]
    head = f"length {len(part.payload)}, checksum ok"
    try:
        request_id, message = codec.decode(part.payload)
    except RemoteProtocolError as error:
        return [f"{head}, {int(error.code)} {CODES[error.code].meaning}: the payload is {_NO_ENVELOPE}"]
    correlated = f", id {request_id}" if request_id else ""
    return [f"{head}, {type(message).__name__}{correlated}", *_fields(message, show_payload)]


def _fields(value: Any, show_payload: bool, indent: str = "") -> Iterator[str]:
    """A line for each field that differs from what its absence means."""
    for field in fields(value):
        item = getattr(value, field.name)
        if not is_dataclass(item) and not item:  # proto3: a zero is not sent
            continue
        if field.name in _SECRET and not show_payload:
            yield f"{indent}{field.name}: {_size_only(item)}"
        elif is_dataclass(item):
            yield f"{indent}{field.name}:"
            yield from _fields(item, show_payload, indent + "  ")
        elif isinstance(item, tuple):
            for number, row in enumerate(item):
                yield f"{indent}{field.name}[{number}]:"
                yield from _fields(row, show_payload, indent + "  ")
        else:
            yield f"{indent}{field.name}: {_scalar(item)}"


def _size_only(item: Any) -> str:
    if isinstance(item, dict):
        return f"{len(item)} headers, {sum(len(name.encode()) + len(text.encode()) for name, text in item.items())} bytes"
    return f"{len(item)} bytes"


def _scalar(item: Any) -> str:
    if isinstance(item, Code):
        return f"{int(item)} {item.name} ({CODES[item].meaning})"
    if isinstance(item, IntEnum):
        return item.name
    return repr(item)
