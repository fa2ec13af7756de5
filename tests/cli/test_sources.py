"""Where payloads come from: lines and whole inputs, bounded."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from streampush.cli.exits import Failure
from streampush.cli.sources import lines, once, read_payload


async def collect(source: AsyncIterator[bytes], into: list[bytes]) -> None:
    into.extend([payload async for payload in source])


class LinesTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.reader, self.writer = os.pipe()
        self.addCleanup(os.close, self.reader)
        self.open = True
        self.addCleanup(self.close)
        self.found: list[bytes] = []

    def close(self) -> None:
        if self.open:
            self.open = False
            os.close(self.writer)

    def read(self, limit: int = 100) -> Deferred[None]:
        return Deferred.fromCoroutine(collect(lines(self.reactor, self.reader, limit), self.found))

    def write(self, data: bytes) -> None:
        os.write(self.writer, data)

    async def test_lines_lose_their_ends_and_empty_ones_are_left_out(self) -> None:
        self.write(b"one\ntwo\r\n\n three \n")
        self.close()
        await self.read()
        self.assertEqual(self.found, [b"one", b"two", b" three "])

    async def test_a_last_line_without_an_end_counts(self) -> None:
        self.write(b"one\ntwo")
        self.close()
        await self.read()
        self.assertEqual(self.found, [b"one", b"two"])

    async def test_a_line_is_there_before_the_input_ends(self) -> None:
        source = lines(self.reactor, self.reader, 100)
        self.write(b"one\ntw")
        self.assertEqual(await anext(source), b"one")
        self.write(b"o\n")
        self.assertEqual(await anext(source), b"two")

    async def test_a_line_over_the_limit_is_refused_by_number(self) -> None:
        self.write(b"one\n" + b"x" * 101 + b"\n")
        with self.assertRaises(Failure) as caught:
            await self.read()
        self.assertIn("line 2 of standard input is longer than 100 bytes", str(caught.exception))

    async def test_a_line_without_an_end_is_not_collected_for_ever(self) -> None:
        self.write(b"x" * 1000)
        with self.assertRaises(Failure):
            await self.read()

    async def test_an_unreadable_input_is_an_error(self) -> None:
        with self.assertRaises(OSError):
            await collect(lines(self.reactor, self.writer, 100), self.found)

    async def test_a_payload_is_repeated(self) -> None:
        await collect(once(b"x", 3), self.found)
        self.assertEqual(self.found, [b"x", b"x", b"x"])


def test_a_payload_is_a_files_content(tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(b"\x00\xff")
    assert read_payload(path, -1, 2) == b"\x00\xff"


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(b"123")
    with pytest.raises(Failure, match="is longer than 2 bytes, the server's limit"):
        read_payload(path, -1, 2)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="none: No such file"):
        read_payload(tmp_path / "none", -1, 2)


def test_standard_input_is_read_whole() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"a\nb\n")
    os.close(writer)
    try:
        assert read_payload(None, reader, 100) == b"a\nb\n"
    finally:
        os.close(reader)
