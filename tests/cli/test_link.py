"""The first connection must succeed, and every end of a client has a line and a status."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from streampush.cli.directory import DevelopmentDirectory
from streampush.cli.exits import BadCredentials, Failure, NoConnection, RefusedByServer
from streampush.cli.link import FirstConnection, explain_error, explain_stop, open_tls
from streampush.cli.target import Target
from streampush.client.errors import (
    ClientError,
    ClientStopped,
    ConnectionLost,
    NotConnected,
    RequestRefused,
    RequestTimeout,
    TooManyRequests,
)
from streampush.client.events import Connected, Disconnected, Stopped, StopReason
from streampush.protocol.codes import Advice, Code
from streampush.protocol.messages import Welcome
from tests.support import make_files

WELCOME = Welcome(node="n1")
LOST = Disconnected(0, Advice.UNSPECIFIED, "connection refused", 0.5)


class FirstConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.first = FirstConnection("localhost", 7443)

    def welcome(self) -> Deferred[Welcome]:
        return Deferred.fromCoroutine(self.first.welcome())

    def test_the_greeting_is_waited_for(self) -> None:
        waiting = self.welcome()
        self.assertNoResult(waiting)
        self.first.event(Connected(WELCOME))
        self.assertEqual(self.successResultOf(waiting), WELCOME)

    def test_a_later_question_is_answered_at_once(self) -> None:
        self.first.event(Connected(WELCOME))
        self.assertEqual(self.successResultOf(self.welcome()), WELCOME)

    def test_no_server_is_no_connection(self) -> None:
        waiting = self.welcome()
        self.first.event(LOST)
        failure = self.failureResultOf(waiting, NoConnection)
        self.assertEqual(str(failure.value), "localhost:7443: connection refused; is the server running?")

    def test_a_server_that_closes_with_a_code_is_not_said_to_be_away(self) -> None:
        waiting = self.welcome()
        self.first.event(Disconnected(Code.STORE_UNAVAILABLE, Advice.RETRY, "the disk is full", 0.5))
        failure = self.failureResultOf(waiting, NoConnection)
        self.assertEqual(str(failure.value), "localhost:7443: 3008 the disk is full; advice: retry")

    def test_a_server_that_says_nothing_may_be_away(self) -> None:
        waiting = self.welcome()
        self.first.event(Disconnected(Code.CONNECTION_TIMED_OUT, Advice.RECONNECT, "TLS handshake not done in time", 0.5))
        failure = self.failureResultOf(waiting, NoConnection)
        self.assertEqual(str(failure.value), "localhost:7443: TLS handshake not done in time; is the server running?")

    def test_patience_waits_for_a_server(self) -> None:
        self.first = FirstConnection("localhost", 7443, patient=True)
        waiting = self.welcome()
        self.first.event(LOST)
        self.assertNoResult(waiting)
        self.first.event(Connected(WELCOME))
        self.assertEqual(self.successResultOf(waiting), WELCOME)

    def test_refused_credentials_are_named_though_a_lost_connection_is_told_first(self) -> None:
        waiting = self.welcome()
        self.first.event(Disconnected(0, Advice.UNSPECIFIED, "certificate expired", None))
        self.first.event(Stopped(StopReason.CREDENTIALS, 0, "certificate expired"))
        failure = self.failureResultOf(waiting, BadCredentials)
        self.assertEqual(str(failure.value), "refused: certificate expired")

    def test_what_happens_later_is_not_the_first_connection(self) -> None:
        self.first.event(Connected(WELCOME))
        self.first.event(LOST)
        self.assertEqual(self.successResultOf(self.welcome()), WELCOME)

    def test_waiting_can_be_cancelled(self) -> None:
        waiting = self.welcome()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.first.event(Connected(WELCOME))


@pytest.mark.parametrize(
    ("stopped", "kind", "text"),
    [
        (Stopped(StopReason.CREDENTIALS, 0, "unknown CA"), BadCredentials, "refused: unknown CA"),
        (
            Stopped(StopReason.RENEW_CERTIFICATE, Code.CERTIFICATE_REJECTED, "revoked"),
            BadCredentials,
            "the server closed: 1010 revoked (renew certificate)",
        ),
        (
            Stopped(StopReason.REPLACED, Code.REPLACED, "newer connection"),
            RefusedByServer,
            "the server closed: 1006 newer connection (replaced)",
        ),
        (Stopped(StopReason.UPGRADE, 2006, "too old"), RefusedByServer, "the server closed: 2006 too old (upgrade)"),
    ],
)
def test_a_stopped_client_ends_the_command(stopped: Stopped, kind: type[Failure], text: str) -> None:
    failure = explain_stop(stopped)
    assert type(failure) is kind
    assert failure.message == text


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            RequestRefused(Code.FORBIDDEN, Advice.REAUTHENTICATE, "not yours"),
            RefusedByServer,
            "refused: 3003 not yours; advice: reauthenticate",
        ),
        (
            RequestRefused(3999, Advice.SLOW_DOWN, "", 2.0),
            RefusedByServer,
            "refused: 3999 unknown code; advice: slow down, after 2 s",
        ),
        (RequestTimeout(), NoConnection, "no answer in time: whether the server has done it is not known"),
        (ConnectionLost(), NoConnection, "the connection was lost"),
        (NotConnected("between two connections"), NoConnection, "between two connections"),
        (ClientStopped("over"), NoConnection, "over"),
        (TooManyRequests("full"), Failure, "full"),
    ],
)
def test_an_error_of_the_client_ends_the_command(error: ClientError, kind: type[Failure], text: str) -> None:
    failure = explain_error(error)
    assert type(failure) is kind
    assert failure.message == text


def target(root: Path) -> Target:
    return Target(DevelopmentDirectory(root), "localhost", 7443, "http://localhost:7480", 1)


def test_the_certificates_of_the_directory_are_used(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    assert open_tls(target(tmp_path), files.device("phone-1"))


def test_a_certificate_that_is_not_there_is_named_with_the_line_to_type(tmp_path: Path) -> None:
    files = make_files(tmp_path, devices=("b", "a"), publishers=())
    with pytest.raises(BadCredentials) as caught:
        open_tls(target(tmp_path), files.directory.device("c"))
    text = f"no certificate for device 'c' in {tmp_path}, there are a, b; `streampush issue {tmp_path} --device c` makes one"
    assert caught.value.message == text


def test_a_certificate_with_anothers_key_is_named(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    files.device("phone-1").key.write_bytes(files.device("sensor-1").key.read_bytes())
    with pytest.raises(BadCredentials, match="do not belong together"):
        open_tls(target(tmp_path), files.device("phone-1"))
