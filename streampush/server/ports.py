"""What the server shell asks of its surroundings, as protocols."""

from __future__ import annotations

from typing import Protocol

from cryptography import x509


class ServerMetrics(Protocol):
    """What the server counts. All methods are cheap and never raise."""

    def connection_state(self, old: str | None, new: str | None) -> None:
        """A connection changed its state; None: it was not there before, or is gone."""

    def handshake(self, result: str, seconds: float | None) -> None:
        """A TLS handshake ended: ok, resumed, or why it failed."""

    def refused_connection(self, reason: str) -> None:
        """A connection was refused before TLS."""

    def proxy_check(self) -> None:
        """A proxy connected for itself, to see whether we live."""

    def sent_elsewhere(self, why: str) -> None:
        """A connection was told to leave for another node: drain, rebalance or stop."""

    def closed(self, code: int, by: str) -> None:
        """A connection ended; `by` is server, peer or network."""

    def received(self, frames: int, bytes: int) -> None:
        """Frames and bytes arrived."""

    def sent(self, frames: int, bytes: int) -> None:
        """Frames and bytes were written."""

    def faulted(self, code: int) -> None:
        """The peer was told of a fault that the connection survives."""

    def round_trip(self, seconds: float) -> None:
        """A ping was answered."""

    def jitter(self, silence: float) -> None:
        """A peer has been silent for longer than is normal, and is not lost."""

    def ping_missed(self) -> None:
        """A ping had no frame in return within the reply timeout."""

    def reloads(self, result: str) -> None:
        """Certificates and lists were read again: ok or failed."""

    def probe(self, seconds: float | None) -> None:
        """The probe message came through after so many seconds, or did not."""

    def receipts_told(self, milestone: str, number: int) -> None:
        """Publishers were sent so many receipts of a milestone, by its lower-case name."""

    def receipts_dropped(self, number: int) -> None:
        """So many messages get no more receipts, for there are too many newer ones."""


class StreamTransport(Protocol):
    """The one port between a connection and the bytes: no code above it knows which TLS it is.

    `write` never blocks; what it is given in one turn of the reactor leaves together.
    """

    @property
    def buffered(self) -> int:
        """Bytes written and not yet taken by the kernel."""

    @property
    def session_reused(self) -> bool:
        """Whether the TLS session was resumed."""

    @property
    def handshake_cpu(self) -> float:
        """CPU seconds that the handshake took on this side."""

    def write(self, data: bytes) -> None: ...

    def has_room(self) -> bool:
        """Whether `buffered` is below the high-water mark; when it is again, the protocol's `roomAgain` is called."""

    def lose_connection(self) -> None:
        """Writes what is buffered, says goodbye, closes."""

    def abort(self) -> None:
        """Closes at once."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def peer_certificate(self) -> x509.Certificate | None: ...
