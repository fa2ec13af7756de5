"""What is counted and logged of a connection; nothing here changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streampush.protocol.codes import Advice
from streampush.protocol.events import Closed, Event, Faulted, Jittered, PingMissed, RoundTripped

if TYPE_CHECKING:
    from streampush.server.connection import StreamConnection
    from streampush.server.surroundings import ConnectionSurroundings


def note_event(around: ConnectionSurroundings, connection: StreamConnection, event: Event) -> None:
    """Something happened that asks for no answer: a fault that was answered already, or what heartbeats tell."""
    attachment = connection.attachment
    if isinstance(event, Faulted):
        around.metrics.faulted(event.code)
        around.log.info(
            "{address} {name}: fault {code}: {detail}",
            address=connection.address,
            name=_name(connection),
            code=int(event.code),
            detail=event.detail,
            session=connection.session_id,
        )
    elif isinstance(event, RoundTripped):
        around.metrics.round_trip(event.seconds)
        if attachment is not None:
            attachment.heartbeats.answered(event.seconds)
    elif isinstance(event, PingMissed):
        around.metrics.ping_missed()
        if attachment is not None:
            attachment.heartbeats.misses += 1
    elif isinstance(event, Jittered):
        around.metrics.jitter(event.silence)
        if attachment is not None:
            attachment.heartbeats.jitters += 1


def note_close(around: ConnectionSurroundings, connection: StreamConnection, ended: Closed, by: str, seconds: float) -> None:
    """The connection is gone after so many seconds; `by` is server, peer or network."""
    around.metrics.closed(int(ended.code), by)
    around.log.info(
        "{address} {name}: closed by {by}: {ending}",
        address=connection.address,
        name=_name(connection),
        by=by,
        ending=_in_words(ended),
        code=int(ended.code),
        detail=ended.detail,
        advice=ended.advice.name,
        session=connection.session_id,
        seconds=round(seconds, 3),
    )


def _name(connection: StreamConnection) -> str:
    principal = connection.principal
    return "unknown" if principal is None else f"{principal.kind} {principal.name}"


def _in_words(ended: Closed) -> str:
    """Code, detail and advice of the end as far as there are any: a peer may leave without (docs/protocol.md section 8)."""
    said = f"{int(ended.code)} {ended.detail}" if ended.code else ended.detail or "it left by itself"
    return said if ended.advice is Advice.UNSPECIFIED else f"{said}, advice {ended.advice.name}"
