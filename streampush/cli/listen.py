"""`streampush listen`: a device in the terminal."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from streampush.cli.exits import Failure, RefusedByServer, describe_code
from streampush.cli.link import LARGEST_FRAMES, FirstConnection, explain_error, explain_stop, open_tls
from streampush.cli.running import run
from streampush.cli.target import directory_option, find_target, host_option, port_option
from streampush.cli.words import counted, shown
from streampush.client.appointments import AppointmentStore, FileAppointments
from streampush.client.errors import ClientError, RequestRefused
from streampush.client.events import (
    Appointed,
    ClientEvent,
    Connected,
    Degraded,
    Disconnected,
    Fault,
    PositionLost,
    Recalled,
    Stopped,
    StopReason,
    SubscriptionLost,
)
from streampush.client.stream import StreamClient
from streampush.client.tls import ClientTls
from streampush.protocol.messages import Delivery
from streampush.protocol.terms import Outcome, Priority, Start

OUTCOMES = {
    "processed": Outcome.PROCESSED,
    "delivered": Outcome.DELIVERED,
    "retry-later": Outcome.RETRY_LATER,
    "rejected": Outcome.REJECTED,
}
STARTS = {"stored": Start.UNSPECIFIED, "latest": Start.LATEST, "earliest": Start.EARLIEST}


@dataclass(frozen=True, slots=True)
class Listening:
    """What to listen to. `count` 0 and `timeout` 0.0: without end.

    `show` takes a line for a message, `tell` a line about the connection.
    """

    host: str
    port: int
    tls: ClientTls = field(repr=False)
    channels: tuple[str, ...] = ()
    start: Start = Start.UNSPECIFIED
    durable: bool = False
    appointments: AppointmentStore | None = None
    outcome: Outcome = Outcome.PROCESSED
    count: int = 0
    timeout: float = 0.0
    as_json: bool = False
    patient: bool = False
    show: Callable[[str], None] = click.echo
    tell: Callable[[str], None] = lambda line: click.echo(line, err=True)


@click.command(short_help="Be a device in the terminal.")
@directory_option
@click.option("--device", required=True, metavar="ID", help="Which device to be.")
@click.option(
    "--subscribe",
    "channels",
    multiple=True,
    metavar="CHANNEL",
    help="A topic to follow; the device's own channels are followed anyway.",
)
@click.option(
    "--start",
    type=click.Choice(list(STARTS)),
    default="stored",
    show_default=True,
    help="Where the topics begin. stored: where this device stopped; latest: skips what it has not read; "
    "earliest: repeats all that is kept.",
)
@click.option("--durable", is_flag=True, help="Let the server keep the subscriptions to these topics, also for later connections.")
@click.option(
    "--ack",
    "ack",
    type=click.Choice(list(OUTCOMES)),
    default="processed",
    show_default=True,
    help="What each message is answered with. retry-later: the server delivers it again, until it is a dead letter.",
)
@click.option("--count", type=click.IntRange(0), default=0, help="End after so many messages.  [default: go on]")
@click.option(
    "--timeout", type=click.FloatRange(0), default=0.0, help="Seconds after which to give up, with status 1.  [default: never]"
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each message.")
@click.option("--wait", "patient", is_flag=True, help="Wait for a server that is not there yet.")
@host_option
@port_option
def listen(
    directory: Path,
    device: str,
    channels: tuple[str, ...],
    start: str,
    ack: str,
    host: str | None,
    port: int | None,
    **options: Any,
) -> None:
    """Connect as a device of the directory and print its messages as they arrive, acknowledging each."""
    target = find_target(directory, host, port)
    tls = open_tls(target, target.files.device(device))
    appointments = FileAppointments(target.files.appointment(device))
    options |= {"appointments": appointments, "outcome": OUTCOMES[ack]}
    listening = Listening(target.host, target.port, tls, channels, STARTS[start], **options)
    run(lambda reactor: Listener(reactor, listening).work())


class Listener:
    """One run of the command, on a reactor."""

    def __init__(self, reactor: Any, listening: Listening) -> None:
        self._reactor = reactor
        self._wanted = listening
        self._left = listening.count
        self._first = FirstConnection(listening.host, listening.port, patient=listening.patient)
        self._over: Deferred[None] = Deferred()
        self._client = StreamClient(
            reactor,
            [(listening.host, listening.port)],
            listening.tls,
            on_message=self._message,
            on_event=self._event,
            app="streampush",
            appointments=listening.appointments,
            settings=LARGEST_FRAMES,
        )

    async def work(self) -> None:
        """Listens until enough has come. Raises Failure if it cannot go on."""
        wanted = self._wanted
        listening = Deferred.fromCoroutine(self._listen())
        if wanted.timeout:
            listening.addTimeout(wanted.timeout, self._reactor)
        try:
            await listening
        except ClientError as error:
            raise explain_error(error) from error
        except DeferredTimeout as error:
            missing = f", {self._left} messages are missing" if wanted.count else ""
            raise Failure(f"gave up after {wanted.timeout:g} s{missing}") from error
        finally:
            self._over.addErrback(lambda failure: None)  # said already, by the first connection
            await self._client.stop()

    async def _listen(self) -> None:
        wanted = self._wanted
        self._client.start()
        await self._first.welcome()
        for channel in wanted.channels:
            try:
                subscribed = await self._client.subscribe(channel, start=wanted.start, durable=wanted.durable)
            except RequestRefused as error:  # of several topics one must be named
                raise RefusedByServer(f"{channel}: {explain_error(error).message}") from error
            behind = subscribed.top_offset - subscribed.offset
            wanted.tell(f"following {channel} behind offset {subscribed.offset}, stored: {behind}")
        await self._over

    async def _message(self, message: Delivery) -> Outcome:
        if self._wanted.count and not self._left:
            return Outcome.RETRY_LATER  # nobody will see it here
        self._wanted.show(as_json(message) if self._wanted.as_json else as_line(message))
        if self._left:
            self._left -= 1
            if not self._left:  # the acknowledgement leaves when this has returned
                self._reactor.callLater(0, self._over.callback, None)
        return self._wanted.outcome

    def _event(self, event: ClientEvent) -> None:
        if isinstance(event, Recalled):
            self._wanted.show(recalled_as_json(event) if self._wanted.as_json else recalled_as_line(event))
        self._first.event(event)
        text = describe_event(event)
        if text and not self._first.failed:  # else the command ends, and its error says it
            self._wanted.tell(text)
        if isinstance(event, Stopped) and event.reason is not StopReason.REQUESTED and not self._over.called:
            self._over.errback(explain_stop(event))


def describe_event(event: ClientEvent) -> str:
    """A line about the connection, empty for what nobody wants to read."""
    if isinstance(event, Connected):
        welcome = event.welcome
        user = f" of {welcome.user_id}" if welcome.user_id else ""
        return f"connected to {welcome.node} as {welcome.device_id}{user}, session {welcome.session_id}"
    if isinstance(event, Disconnected) and event.next_try_in is not None:
        reason = describe_code(event.code, event.advice, event.detail) if event.code else event.detail or "connection lost"
        return f"disconnected: {reason}; next try in {event.next_try_in:.1f} s"
    if isinstance(event, Appointed):
        return f"the server wants this device back in {event.next_try_in:.1f} s, as it said before: waiting"
    if isinstance(event, Degraded):
        return f"away for {event.tries} tries: short connections from now on"
    if isinstance(event, PositionLost):
        most = f"at most {counted(event.lost_at_most, 'message')}" if event.lost_at_most else "messages, it is not known how many"
        return f"{event.channel}: lost {most} ({event.reason.name.lower().replace('_', ' ')})"
    if isinstance(event, SubscriptionLost):
        return f"{event.channel}: no longer followed: {int(event.code)} {event.detail}"
    if isinstance(event, Fault):
        return f"fault: {int(event.code)} {event.detail}"
    return ""


def as_line(message: Delivery) -> str:
    """A message for people; control characters cannot reach the terminal."""
    try:
        text = message.payload.decode()
    except UnicodeDecodeError:
        text = f"({len(message.payload)} bytes) {message.payload.hex()}"
    return f"{message.channel} #{message.offset}  {shown(text)}"


def as_json(message: Delivery) -> str:
    """A message as one JSON object; a payload that is no UTF-8 text is `payload_base64`."""
    row: dict[str, Any] = {"channel": message.channel, "offset": message.offset, "message_id": message.message_id}
    try:
        row["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        row["payload_base64"] = base64.b64encode(message.payload).decode()
    if message.priority not in (Priority.UNSPECIFIED, Priority.NORMAL):
        row["priority"] = message.priority.name
    if message.collapse_key:
        row["collapse_key"] = message.collapse_key
    if message.expires_at_ms:
        row["expires_at_ms"] = message.expires_at_ms
    row |= {"published_at_ms": message.published_at_ms, "content_type": message.content_type, "headers": dict(message.headers)}
    return json.dumps(row)


def recalled_as_line(notice: Recalled) -> str:
    """A recall notice for people."""
    return f"{notice.channel} #{notice.offset}  recalled: {notice.message_id}"


def recalled_as_json(notice: Recalled) -> str:
    """A recall notice as one JSON object: it has `recalls` and no payload."""
    return json.dumps({"channel": notice.channel, "offset": notice.offset, "recalls": notice.message_id})
