"""Publishing many: order, rate, patience; and what the command refuses before it connects."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streampush.cli.exits import NoConnection, RefusedByServer
from streampush.cli.main import main
from streampush.cli.outgoing import Outgoing, PublishRefused, Sent
from streampush.cli.patience import SAME_AGAIN, Patience
from streampush.cli.publish import MAX_TRIES, Job, carry_out, parse_moment, publish_all, sentence
from streampush.cli.sources import once
from streampush.protocol.codes import Advice, Code
from streampush.protocol.terms import Durability
from streampush.push.values import Published
from streampush.rest.documents import published
from tests.support import make_files

JOB = Job(Outgoing("news/today", b""), lambda reactor: once(b"x", 3), 3, 0.0, False)


class Recorder:
    """A publisher that remembers when it was given what, and refuses as often as it is told to."""

    answer_timeout = 60.0

    def __init__(self, clock: Clock, *refusals: PublishRefused) -> None:
        self._clock = clock
        self._refusals = list(refusals)
        self.times: list[float] = []
        self.messages: list[Outgoing] = []
        self.fail_behind = 0  # messages; then the connection is gone
        self.closed = False
        self.unanswered: Deferred[None] | None = None

    async def publish(self, message: Outgoing) -> Sent:
        self.times.append(self._clock.seconds())
        if self.unanswered is not None:
            await self.unanswered
        if self._refusals:
            raise self._refusals.pop(0)
        if self.fail_behind and len(self.messages) == self.fail_behind:
            raise NoConnection("gone")
        self.messages.append(message)
        return Sent(f"m-{len(self.messages)}", message.channel, len(self.messages), 2)

    async def close(self) -> None:
        self.closed = True


class PublishAllTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[Sent] = []
        self.said: list[str] = []

    def publish(self, publisher: Recorder, job: Job = JOB) -> Deferred[None]:
        patience = Patience(self.clock, self.said.append, answer_timeout=60.0, wall=lambda: 1_790_000_000 + self.clock.seconds())
        return Deferred.fromCoroutine(publish_all(self.clock, publisher, job, self.sent.append, patience))


class PublishAllTests(PublishAllTestCase):
    def test_every_payload_is_published_and_reported(self) -> None:
        publisher = Recorder(self.clock)
        self.successResultOf(self.publish(publisher))
        self.assertEqual([message.payload for message in publisher.messages], [b"x"] * 3)
        self.assertEqual([sent.offset for sent in self.sent], [1, 2, 3])

    def test_the_rate_spaces_them(self) -> None:
        publisher = Recorder(self.clock)
        done = self.publish(publisher, replace(JOB, rate=2.0))
        self.clock.pump([0.25] * 4)
        self.successResultOf(done)
        self.assertEqual(publisher.times, [0.0, 0.5, 1.0])

    def test_what_the_message_is_otherwise_stays(self) -> None:
        publisher = Recorder(self.clock)
        model = Outgoing("user:alice", b"", "text/plain", {"a": "b"}, 9.0)
        self.successResultOf(self.publish(publisher, replace(JOB, model=model)))
        self.assertEqual(publisher.messages[0], replace(model, payload=b"x"))

    def test_a_server_that_says_when_is_obeyed(self) -> None:
        publisher = Recorder(self.clock, refusal(retry_after=2.0))
        done = self.publish(publisher)
        self.clock.advance(1.9)
        self.assertNoResult(done)
        self.clock.advance(0.2)
        self.successResultOf(done)
        self.assertEqual([message.payload for message in publisher.messages], [b"x"] * 3)

    def test_a_server_that_always_wants_it_later_is_left(self) -> None:
        publisher = Recorder(self.clock, *[refusal(retry_after=1.0)] * MAX_TRIES)
        done = self.publish(publisher)
        self.clock.pump([1.0] * MAX_TRIES)
        self.failureResultOf(done, PublishRefused)
        self.assertEqual(len(publisher.times), MAX_TRIES)

    def test_a_refusal_without_a_time_is_final(self) -> None:
        publisher = Recorder(self.clock, refusal(retry_after=0.0))
        self.failureResultOf(self.publish(publisher), PublishRefused)
        self.assertEqual(self.sent, [])


class PatienceTests(PublishAllTestCase):
    """The server's clock begins at 14:13:20 UTC."""

    def test_a_wait_of_less_than_a_second_is_not_told(self) -> None:
        done = self.publish(Recorder(self.clock, refusal(retry_after=0.9)))
        self.clock.advance(0.9)
        self.successResultOf(done)
        self.clock.advance(10)
        self.assertEqual(self.said, [])

    def test_a_wait_for_redis_is_told_after_a_second_with_its_end(self) -> None:
        away = PublishRefused(Code.STORE_UNAVAILABLE, Advice.RETRY, "Redis is away: Connection refused", 1.0)
        done = self.publish(Recorder(self.clock, away, away))
        self.clock.advance(0.9)
        self.assertEqual(self.said, [])
        self.clock.advance(0.1)
        words = "waits: 3008 Redis is away: Connection refused; advice: retry; tries again"
        self.assertEqual(self.said, [f"{words}, 4 times at most, until about 14:13:24 UTC"])
        self.clock.advance(1.0)
        self.successResultOf(done)
        self.assertEqual(len(self.said), 1)

    def test_another_reason_is_told_at_once_and_the_same_again_after_a_while(self) -> None:
        slow, away = refusal(retry_after=SAME_AGAIN / 2), PublishRefused(Code.STORE_UNAVAILABLE, Advice.RETRY, "away", SAME_AGAIN)
        done = self.publish(Recorder(self.clock, slow, slow, away, away))
        told = [(self.clock.advance(SAME_AGAIN / 2), len(self.said))[1] for _ in range(6)]
        self.assertEqual(told, [1, 2, 2, 3, 3, 3])
        self.successResultOf(done)

    def test_a_server_that_does_not_answer_is_waited_for_until_a_moment_that_is_told(self) -> None:
        silent = Recorder(self.clock)
        silent.unanswered = Deferred()
        done = self.publish(silent)
        self.clock.advance(1.0)
        self.assertEqual(self.said, ["waits for the server's answer, until about 14:14:20 UTC"])
        silent.unanswered.callback(None)
        self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CarryOutTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.publisher = Recorder(self.clock)
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def carry_out(self, job: Job = JOB) -> Deferred[None]:
        return Deferred.fromCoroutine(carry_out(self.clock, self.publisher, job))

    def test_one_message_is_told_in_a_sentence(self) -> None:
        self.successResultOf(self.carry_out(replace(JOB, payloads=lambda reactor: once(b"x", 1), total=1)))
        self.assertEqual(self.out.getvalue(), "published m-1 to news/today, offset 1, 2 connections\n")
        self.assertEqual(self.err.getvalue(), "")

    def test_what_it_waits_for_is_told_on_stderr(self) -> None:
        self.publisher = Recorder(self.clock, refusal(retry_after=2.0))
        done = self.carry_out()
        self.clock.advance(1.0)
        self.assertIn("waits: 3001 too fast", self.err.getvalue())
        self.clock.advance(1.0)
        self.successResultOf(done)
        self.assertNotIn("waits", self.out.getvalue())

    def test_many_are_summed_up(self) -> None:
        done = self.carry_out(replace(JOB, rate=1.0))
        self.clock.pump([1.0] * 3)
        self.successResultOf(done)
        self.assertEqual(self.out.getvalue(), "published 3 messages to news/today, offsets 1 to 3, 2 a second\n")

    def test_json_is_a_line_for_each(self) -> None:
        self.successResultOf(self.carry_out(replace(JOB, as_json=True)))
        rows = [json.loads(line) for line in self.out.getvalue().splitlines()]
        self.assertEqual([row["offset"] for row in rows], [1, 2, 3])
        usual = {"duplicate": False, "superseded": False, "deliver_at": 0, "epoch": "", "durability": ""}
        self.assertEqual(rows[0], {"message_id": "m-1", "channel": "news/today", "offset": 1, "connections": 2, **usual})

    def test_json_is_what_rest_answers(self) -> None:
        answer = published(Published("m", "news", 1, "e", Durability.MEMORY, 2))
        sent = Sent("m", "news", 1, 2, epoch="e", durability="MEMORY")
        self.assertEqual(sent.document(), answer)

    def test_no_payloads_are_no_error(self) -> None:
        self.successResultOf(self.carry_out(replace(JOB, payloads=lambda reactor: once(b"x", 0), total=None)))
        self.assertEqual(self.out.getvalue(), "nothing to publish\n")

    def test_a_refusal_is_told_with_what_went_out_before(self) -> None:
        self.publisher = Recorder(self.clock, refusal(retry_after=0.0))
        failure = self.failureResultOf(self.carry_out(), RefusedByServer)
        self.assertEqual(failure.value.message, "refused: 3001 too fast; advice: slow down")
        self.assertTrue(self.publisher.closed)

    def test_a_connection_that_goes_is_told_with_what_went_out_before(self) -> None:
        self.publisher.fail_behind = 2
        failure = self.failureResultOf(self.carry_out(), NoConnection)
        self.assertEqual(failure.value.message, "gone (published before that: 2)")
        self.assertTrue(self.publisher.closed)


@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (Sent("m-1", "news", 7, 1), "published m-1 to news, offset 7, 1 connection"),
        (Sent("m-1", "news", 7, 0, duplicate=True), "published before: m-1 to news, offset 7"),
        (Sent("m-1", "news", 7, 0, superseded=True), "not stored: news has this version or a newer one at offset 7"),
        (
            Sent("m-1", "news", 0, 0, deliver_at_ms=1_790_000_000_250),
            "scheduled m-1 to news for 2026-09-21T14:13:20.250+00:00",
        ),
        (
            Sent("m-1", "news", 0, 0, duplicate=True, deliver_at_ms=1_790_000_000_000),
            "scheduled m-1 to news for 2026-09-21T14:13:20.000+00:00 (was before)",
        ),
    ],
)
def test_what_became_of_a_message_is_a_sentence(sent: Sent, line: str) -> None:
    assert sentence(sent) == line


def test_a_moment_may_be_told_from_now() -> None:
    before = time.time() * 1000
    assert before + 59_999 <= parse_moment("+60") <= time.time() * 1000 + 60_001
    assert parse_moment("1790000000000") == 1_790_000_000_000


def refusal(retry_after: float) -> PublishRefused:
    return PublishRefused(Code.MESSAGE_RATE_EXCEEDED, Advice.SLOW_DOWN, "too fast", retry_after)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_files(tmp_path, devices=(), publishers=())
    (tmp_path / "secrets" / "rest.key").write_text("sp_key\n")
    return tmp_path


def run(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["publish", "--dir", str(directory), *arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        ("news", "a", "--stdin-lines"),
        ("news", "a", "--file", __file__),
        ("news", "--stdin-lines", "--repeat", "2"),
        ("news", "a", "--rest", "--publisher", "backend"),
        ("news", "a", "--host", "push.example.org"),
        ("news", "a", "--port", "7443", "--rest"),
        ("news", "a", "--rest-url", "push.example.org:7480"),
        ("news", "a", "--header", "x"),
        ("news", "a", "--rate", "-1"),
        ("news", "a", "--repeat", "2", "--idempotency-key", "k"),
        ("news", "--stdin-lines", "--idempotency-key", "k"),
        ("news", "a", "--ttl", "1", "--expires-at", "+5"),
        ("news", "a", "--deliver-at", "tomorrow"),
        ("news", "a", "--deliver-at", "+nan"),
        ("news", "a", "--deliver-at", "-5"),
        ("news", "a", "--expires-at", "0"),
        ("news", "a", "--priority", "urgent"),
        ("news", "a", "--version", "-1"),
        (),
    ],
)
def test_contradictions_are_wrong_usage(directory: Path, arguments: tuple[str, ...]) -> None:
    assert run(directory, *arguments).exit_code == 2


def test_a_payload_over_the_limit_is_refused_before_connecting(directory: Path) -> None:
    result = run(directory, "news", "x" * (256 * 1024 + 1))
    assert result.exit_code == 1
    assert "longer than 262144 bytes, the server's limit (publish.max_payload)" in result.output


def test_a_file_over_the_limit_is_refused_before_connecting(directory: Path) -> None:
    path = directory / "big"
    path.write_bytes(bytes(256 * 1024 + 1))
    assert "is longer than 262144 bytes" in run(directory, "news", "--file", str(path)).output


def test_a_missing_rest_key_is_named(directory: Path) -> None:
    (directory / "secrets" / "rest.key").unlink()
    result = run(directory, "news", "x")
    assert result.exit_code == 5
    assert result.output == f"Error: REST key {directory}/secrets/rest.key: No such file or directory\n"


@pytest.mark.parametrize("content", [b"", b"two keys", b"\xff\xfe", b"a\nb"])
def test_a_broken_rest_key_is_not_quoted(directory: Path, content: bytes) -> None:
    (directory / "secrets" / "rest.key").write_bytes(content)
    result = run(directory, "news", "x")
    assert result.exit_code == 5
    assert result.output.endswith("rest.key: must be one line of printable ASCII\n")


def test_a_broken_configuration_is_named(directory: Path) -> None:
    (directory / "streampush.toml").write_text("[listen]\nport = 'x'\n")
    result = run(directory, "news", "x")
    assert result.exit_code == 1
    assert "listen.port: must be a whole number, not text" in result.output
