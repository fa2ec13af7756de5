"""The reference client as the commands use it: the first connection must succeed, and every end has a line and a status."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from streampush.cli.directory import Credentials
from streampush.cli.exits import BadCredentials, Failure, NoConnection, RefusedByServer, describe_code
from streampush.cli.target import Target
from streampush.client.errors import (
    ClientError,
    ClientStopped,
    ConnectionLost,
    CredentialsError,
    NotConnected,
    RequestRefused,
    RequestTimeout,
)
from streampush.client.events import ClientEvent, Connected, Disconnected, Stopped, StopReason
from streampush.client.tls import ClientTls
from streampush.protocol.codes import Code
from streampush.protocol.framing import MAX_FRAME_LIMIT
from streampush.protocol.messages import Welcome
from streampush.protocol.session import SessionSettings

LARGEST_FRAMES = SessionSettings(max_frame=MAX_FRAME_LIMIT)
"""For a tool that does not know its server: whatever that one takes and sends."""

_CREDENTIALS = (StopReason.CREDENTIALS, StopReason.RENEW_CERTIFICATE, StopReason.REAUTHENTICATE)


def open_tls(target: Target, paths: Credentials) -> ClientTls:
    """Mutual TLS with a certificate of the directory. Raises BadCredentials."""
    if not paths.certificate.exists():
        kind, _, name = paths.certificate.stem.partition("-")
        there = sorted(path.stem.removeprefix(f"{kind}-") for path in target.files.secrets.glob(f"{kind}-*.crt"))
        known = f"there are {', '.join(there)}" if there else "there is none"
        text = f"no certificate for {kind} {name!r} in {target.files.root}, {known}; "
        raise BadCredentials(f"{text}`streampush issue {target.files.root} --{kind} {name}` makes one")
    try:
        return ClientTls.from_files(target.files.ca.certificate, paths.certificate, paths.key)
    except CredentialsError as error:
        raise BadCredentials(str(error)) from error


def explain_stop(stopped: Stopped) -> Failure:
    """Why a client will not connect again, as the end of a command."""
    if stopped.reason is StopReason.CREDENTIALS:
        return BadCredentials(f"refused: {stopped.detail}")
    words = stopped.reason.value.replace("_", " ")
    text = f"the server closed: {int(stopped.code)} {stopped.detail} ({words})"
    return BadCredentials(text) if stopped.reason in _CREDENTIALS else RefusedByServer(text)


def explain_error(error: ClientError) -> Failure:
    """What an exception of the client means for the user."""
    if isinstance(error, RequestRefused):
        return RefusedByServer(f"refused: {describe_code(error.code, error.advice, error.detail, error.retry_after)}")
    if isinstance(error, RequestTimeout):
        return NoConnection("no answer in time: whether the server has done it is not known")
    if isinstance(error, (ConnectionLost, NotConnected, ClientStopped)):
        return NoConnection(str(error) or "the connection was lost")
    return Failure(str(error))


def _no_connection(event: Disconnected) -> str:
    """Why; behind any code but 1001, which is a silence, there was a server."""
    if event.code not in (0, Code.CONNECTION_TIMED_OUT):
        return describe_code(event.code, event.advice, event.detail)
    return f"{event.detail.rstrip('.') or 'no connection'}; is the server running?"


class FirstConnection:
    """Waits for the first connection: give it the client's events. `address` is for messages."""

    def __init__(self, host: str, port: int, *, patient: bool = False) -> None:
        self._address = f"{host}:{port}"
        self._patient = patient
        self._outcome: Welcome | Failure | None = None
        self._waiting: list[Deferred[None]] = []

    def event(self, event: ClientEvent) -> None:
        """Takes an event; those after the first connection are ignored."""
        if self._outcome is not None:
            return
        if isinstance(event, Connected):
            self._settle(event.welcome)
        elif isinstance(event, Stopped):
            self._settle(explain_stop(event))
        elif isinstance(event, Disconnected) and event.next_try_in is not None and not self._patient:
            self._settle(NoConnection(f"{self._address}: {_no_connection(event)}"))

    def _settle(self, outcome: Welcome | Failure) -> None:
        self._outcome = outcome
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    @property
    def failed(self) -> bool:
        """There was none, and none is waited for."""
        return isinstance(self._outcome, Failure)

    async def welcome(self) -> Welcome:
        """The server's greeting. Raises Failure if the first connection failed."""
        if self._outcome is None:
            deferred: Deferred[None] = Deferred(canceller=self._waiting.remove)
            self._waiting.append(deferred)
            await deferred
        assert self._outcome is not None
        if isinstance(self._outcome, Failure):
            raise self._outcome
        return self._outcome
