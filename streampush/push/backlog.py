"""What waits for a device: how much on each channel, and the entries of one channel, without payload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Priority
from streampush.push.channels import Kind, device_channel, kind_of, unknown_device
from streampush.push.cursors import CursorWriter
from streampush.push.store_ports import Store
from streampush.push.values import CursorMove, Publication, Survey, Want

MAX_ENTRIES = 1_000
"""Of one page."""

MAX_COUNTED = 1_000
"""Entries of one channel that are looked at to count those that wait: as many as its log keeps by default."""

MAX_COUNTED_OF_ALL = 10_000
"""The same of all channels of a device together, the channels with the fewest first: some milliseconds of the store's reader."""


@dataclass(frozen=True, slots=True)
class ChannelBacklog:
    """How much of a channel waits for a device.

    `waiting`: what is still to be delivered behind `acknowledged`, without what expired, was superseded or recalled; a recall
    notice counts. Exact up to MAX_COUNTED; of what lies behind that, what was superseded or recalled counts, too. `lost` of
    those behind the device's cursor have left the log; `restarted`: the log was begun anew or cut back, and nothing of the
    cursor holds.
    """

    channel: str
    acknowledged: int
    top: int
    waiting: int
    lost: int
    restarted: bool
    durable: bool


@dataclass(frozen=True, slots=True)
class BacklogEntry:
    """A publication that waits. `size` in bytes of payload; `recalls`: it is a recall notice for that message."""

    message_id: str
    offset: int
    published_at_ms: int
    expires_at_ms: int
    size: int
    content_type: str
    priority: Priority
    collapse_key: str
    recalls: str


@dataclass(frozen=True, slots=True)
class BacklogPage:
    """Some of what waits, in order. `following`: the offset behind which the next page begins; None: there is no more."""

    channel: str
    epoch: str
    entries: tuple[BacklogEntry, ...]
    following: int | None


class Backlog:
    """`page_bytes`: the most payload that is read from the log for one page."""

    def __init__(self, store: Store, cursors: CursorWriter, page_bytes: int) -> None:
        self._store = store
        self._cursors = cursors
        self._page_bytes = page_bytes

    async def channels(self, device_id: str) -> tuple[ChannelBacklog, ...]:
        """Every channel that the device has a place in, in order of names. Raises Refused(UNKNOWN_RECIPIENT)."""
        if await self._store.device(device_id) is None:
            raise unknown_device()
        durable = {subscription.channel for subscription in await self._store.subscriptions(device_id)}
        channels = {device_channel(device_id), *durable, *await self._store.cursors(device_id)}
        found = await self._survey(device_id, sorted(channels))
        return await self._counted([_backlog(survey, pending, survey.channel in durable) for survey, pending in found])

    async def _counted(self, backlogs: Sequence[ChannelBacklog]) -> tuple[ChannelBacklog, ...]:
        """With exact numbers of what waits, as far as they may be counted."""
        left = MAX_COUNTED_OF_ALL
        spans: list[tuple[str, int, int]] = []
        for backlog in sorted((one for one in backlogs if one.waiting), key=lambda one: one.waiting):
            begin = backlog.acknowledged + backlog.lost
            size = min(backlog.top - begin, MAX_COUNTED, left)
            left -= size
            spans.append((backlog.channel, begin, begin + size))
        if not spans:
            return tuple(backlogs)
        counts = await self._store.count_readable(spans)
        counted = {span[0]: (span[2], count) for span, count in zip(spans, counts, strict=True)}
        return tuple(_exactly(one, *counted[one.channel]) if one.waiting else one for one in backlogs)

    async def entries(self, device_id: str, channel: str, after: int, limit: int) -> BacklogPage:
        """At most `limit` (1 to MAX_ENTRIES) publications that wait, behind the offset `after`. May be empty and not the end.

        Raises Refused: UNKNOWN_RECIPIENT for a device that was never seen or what is no name of a channel, NOT_SUBSCRIBED for a
        channel in which the device has no place.
        """
        kind_of(channel)
        if await self._store.device(device_id) is None:
            raise unknown_device()
        ((survey, pending),) = await self._survey(device_id, [channel])
        if channel != device_channel(device_id) and _place(survey, pending) is None:
            raise Refused(Code.NOT_SUBSCRIBED, "the device has no place in this channel", channel=channel)
        backlog = _backlog(survey, pending, durable=False)
        page = await self._store.read(channel, max(after, backlog.acknowledged), limit, self._page_bytes)
        following = page.next_offset if page.next_offset < page.head.top_offset else None
        return BacklogPage(channel, page.head.epoch, tuple(map(_entry, page.publications)), following)

    async def _survey(self, device_id: str, channels: Sequence[str]) -> list[tuple[Survey, CursorMove | None]]:
        """Each with what was acknowledged and not stored when it was asked for; what is acknowledged meanwhile may be ahead."""
        pending = [self._cursors.pending(device_id, channel) for channel in channels]
        own = device_channel(device_id)  # delivered from the beginning to a device without a place
        wants = [
            Want(channel, ((move.offset,) if move else ()) + ((0,) if channel == own else ()))
            for channel, move in zip(channels, pending, strict=True)
        ]
        return list(zip(await self._store.survey(device_id, wants), pending, strict=True))


def _place(survey: Survey, pending: CursorMove | None) -> tuple[str, int] | None:
    """Epoch and offset up to which the device is done."""
    places = [(place.epoch, place.offset) for place in (survey.cursor, pending) if place is not None]
    current = [place for place in places if place[0] == survey.head.epoch]
    return max(current, default=places[0] if places else None)


def _backlog(survey: Survey, pending: CursorMove | None, durable: bool) -> ChannelBacklog:
    head = survey.head
    place = _place(survey, pending)
    if place is None:  # only its own channel is delivered from the beginning
        if kind_of(survey.channel)[0] is not Kind.DEVICE:
            return ChannelBacklog(survey.channel, head.top_offset, head.top_offset, 0, 0, False, durable)
        waiting = max(0, head.top_offset - head.floor_offset - _expired(survey, 0))
        return ChannelBacklog(survey.channel, 0, head.top_offset, waiting, head.floor_offset, False, durable)
    epoch, offset = place
    if epoch != head.epoch or offset > head.top_offset:  # delivery begins anew, at the oldest entry
        waiting = head.top_offset - head.floor_offset
        return ChannelBacklog(survey.channel, head.floor_offset, head.top_offset, waiting, 0, True, durable)
    lost = max(0, head.floor_offset - offset)
    waiting = head.top_offset - offset - lost - (0 if lost else _expired(survey, offset))
    return ChannelBacklog(survey.channel, offset, head.top_offset, max(0, waiting), lost, False, durable)


def _exactly(backlog: ChannelBacklog, last: int, count: int) -> ChannelBacklog:
    """With `count` that wait up to the offset `last`; behind it, all that were taken to wait."""
    return replace(backlog, waiting=min(backlog.waiting, count + backlog.top - last))


def _expired(survey: Survey, offset: int) -> int:
    """How many behind the offset have expired, as far as that was asked for."""
    spot = survey.spots.get(offset)
    return 0 if spot is None else spot.expired


def _entry(publication: Publication) -> BacklogEntry:
    return BacklogEntry(
        publication.message_id,
        publication.offset,
        publication.published_at_ms,
        publication.expires_at_ms,
        len(publication.payload),
        publication.content_type,
        publication.priority,
        publication.collapse_key,
        publication.recalls,
    )
