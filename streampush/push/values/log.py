"""What is in a channel's log, and what comes into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from streampush.protocol.terms import Durability, Priority
from streampush.quick_values import quick_value

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What makes a repeated publish harmless: the same `key` of the same `scope` (the publisher) is stored once.

    `fingerprint` stands for the rest of the request; the key is forgotten at `expires_at_ms`.
    """

    scope: str
    key: str = field(repr=False)
    fingerprint: bytes = field(repr=False)
    expires_at_ms: int


@quick_value(frozen=True, slots=True)
class Draft:
    """A publication that is validated and has its id, but no offset yet. `expires_at_ms` 0: does not expire.

    `deliver_at_ms` 0: at once. `version` 0: none. `publisher` is who published it, as "kind:name". `fallback`: what is to be done
    for devices that do not take it; the store keeps it as work of the kind FALLBACK and knows nothing of it; empty: nothing.
    """

    channel: str
    message_id: str
    payload: bytes = field(repr=False)
    published_at_ms: int
    expires_at_ms: int = 0
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS, repr=False)
    priority: Priority = Priority.NORMAL
    collapse_key: str = ""
    version: int = 0
    deliver_at_ms: int = 0
    want_receipt: bool = False
    clear_on_processed: bool = False
    publisher: str = ""
    idempotency: Idempotency | None = None
    fallback: bytes = field(default=b"", repr=False)


@quick_value(frozen=True, slots=True)
class Publication:
    """An entry of a channel's log. With `recalls` it is a recall notice: the id of an earlier entry that is taken back."""

    channel: str
    offset: int
    message_id: str
    payload: bytes = field(repr=False)
    published_at_ms: int
    expires_at_ms: int = 0
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS, repr=False)
    priority: Priority = Priority.NORMAL
    collapse_key: str = ""
    recalls: str = ""
    want_receipt: bool = False
    clear_on_processed: bool = False


@quick_value(frozen=True, slots=True)
class Appended:
    """A publication that is new in its channel's log, for the fan-out."""

    publication: Publication
    epoch: str
    durability: Durability


@quick_value(frozen=True, slots=True)
class Accepted:
    """The store's answer to an append. `appended` is None if nothing is new in the log: then one of these says why.

    `duplicate`: the idempotency key is known, this is the first answer again. `superseded`: a newer version is there, at `offset`.
    `deliver_at_ms`: it is scheduled, and has no offset yet.
    """

    message_id: str
    channel: str
    offset: int
    epoch: str
    durability: Durability
    duplicate: bool = False
    superseded: bool = False
    deliver_at_ms: int = 0
    appended: Appended | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a channel's log: entries with `floor_offset < offset <= top_offset` may still be read.

    `floor_id` is the id of the entry at `floor_offset`, kept when the entry itself is gone: a position there can be proven.
    `urgent_offset` is that of the newest publication of high priority, 0 if there was none.
    """

    epoch: str
    top_offset: int
    floor_offset: int = 0
    floor_id: str = ""
    urgent_offset: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """What a read of the log gave, in order of offset, without what expired, was superseded by its collapse key, or recalled.

    `next_offset` is where the next read goes on: publications up to it are in this page, or left out. `expired` counts those
    that had outlived their time.
    """

    head: Head
    publications: tuple[Publication, ...]
    next_offset: int
    expired: int = 0
