"""What the store says of itself, and the work that it keeps for senders."""

from __future__ import annotations

from dataclasses import dataclass, field

from streampush.quick_values import quick_value

FALLBACK = "fallback"
"""The kind of work that a publication with a `fallback` leads to: its key is the message id, its body the fallback."""

PUSH = "push"
"""The kind of work that such work leads to for each device that is to be pushed to; its key names both."""


@quick_value(frozen=True, slots=True)
class OutboxWork:
    """Work for a sender that is to be kept, see push.store_ports.OutboxStore. It is due at `not_before_ms`."""

    kind: str
    key: str
    body: bytes = field(repr=False)
    not_before_ms: int


@quick_value(frozen=True, slots=True)
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
