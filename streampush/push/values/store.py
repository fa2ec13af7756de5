"""What the store says of itself, and the work that it keeps for senders."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """Work for a sender, leased to whoever holds the `token` until the lease ends. `attempts` counts the leases, this one too."""

    token: str
    kind: str
    key: str
    body: bytes = field(repr=False)
    attempts: int


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """How much the store holds. `bytes` is what counts against its limit; `keys`: of idempotency, expired ones too."""

    channels: int
    publications: int
    bytes: int
    devices: int
    scheduled: int
    dead_letters: int
    outbox: int
    keys: int
