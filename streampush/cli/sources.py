"""The payloads of `streampush publish`: an argument, a file, standard input whole or by lines."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure as TwistedFailure

from streampush.cli.exits import Failure

CHUNK = 64 * 1024


async def once(payload: bytes, repeat: int) -> AsyncIterator[bytes]:
    """The same payload `repeat` times."""
    for _ in range(repeat):
        yield payload


async def lines(reactor: Any, descriptor: int, limit: int) -> AsyncIterator[bytes]:
    """The lines of a file descriptor without their ends, as they come; empty ones are left out.

    Raises Failure for a line of more than `limit` bytes: it would not be published, and must not be collected either.
    """
    rest = b""
    number = 0
    while chunk := await read_some(reactor, descriptor):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            payload = line.removesuffix(b"\r")
            _check(payload, number, limit)
            if payload:
                yield payload
        _check(rest, number + 1, limit)
    if rest:
        yield rest


def _check(line: bytes, number: int, limit: int) -> None:
    if len(line) > limit:
        raise Failure(f"line {number} of standard input is longer than {limit} bytes, the server's limit")


def read_some(reactor: Any, descriptor: int) -> Deferred[bytes]:
    """Up to CHUNK bytes of a file descriptor, b"" at its end, without blocking the reactor.

    A thread of its own, a daemon: the reactor's pool would not end while somebody types nothing.
    """
    result: Deferred[bytes] = Deferred(canceller=lambda deferred: None)

    def read() -> None:
        try:
            chunk = os.read(descriptor, CHUNK)
        except OSError:
            reactor.callFromThread(result.errback, TwistedFailure())  # type: ignore[no-untyped-call]  # Twisted has no types here
        else:
            reactor.callFromThread(result.callback, chunk)

    threading.Thread(target=read, name="standard input", daemon=True).start()
    return result


def read_payload(path: Path | None, descriptor: int, limit: int) -> bytes:
    """A file's content, or without a path what is on the descriptor. Raises Failure if it is more than `limit` bytes."""
    try:
        if path is not None:
            with path.open("rb") as file:
                payload = file.read(limit + 1)
        else:
            with os.fdopen(os.dup(descriptor), "rb") as file:
                payload = file.read(limit + 1)
    except OSError as error:
        raise Failure(f"{path or 'standard input'}: {error.strerror}") from error
    if len(payload) > limit:
        raise Failure(f"{path or 'standard input'} is longer than {limit} bytes, the server's limit (publish.max_payload)")
    return payload
