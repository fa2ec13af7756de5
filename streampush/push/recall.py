"""Recall: a message is taken back. Devices that do not have it never get it; the others get a notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.fanout import FanOut
from streampush.push.ports import PushMetrics
from streampush.push.publishing import Publishing
from streampush.push.store_ports import Store
from streampush.push.values import Appended, MessageRecord, Principal, Recalled


class Recalls:
    """Takes messages back for publishers. The arguments are those of Publishing."""

    def __init__(
        self,
        store: Store,
        fanout: FanOut,
        publishing: Publishing,
        metrics: PushMetrics,
        *,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        new_id: Callable[[int], str],
    ) -> None:
        self._store = store
        self._fanout = fanout
        self._publishing = publishing
        self._metrics = metrics
        self._clock = clock
        self._wall_ms = wall_ms
        self._new_id = new_id

    async def recall(self, principal: Principal, message_id: str) -> Recalled:
        """Takes back a message of a channel that the principal may publish to; it counts against its rate like a publish.

        Raises Refused: UNKNOWN_RECIPIENT if the message is neither scheduled nor in a log, FORBIDDEN, MESSAGE_RATE_EXCEEDED,
        STORE_UNAVAILABLE. Doing it again is harmless.
        """
        try:
            return await self._recall(principal, message_id)
        except Refused as refused:
            self._metrics.refused(refused.code)
            raise

    def cleared(self, notices: Sequence[Appended]) -> None:
        """The store has recalled messages that a device has processed; the other devices are told."""
        at = self._clock()
        for notice in notices:
            self._metrics.recalled("processed")
            self._fanout.appended(notice, at)

    async def _recall(self, principal: Principal, message_id: str) -> Recalled:
        begun_at = self._clock()
        await self._publishing.charge(principal, "", begun_at)
        record = await self._known(message_id)
        self._publishing.permit(principal, record.channel)
        now_ms = self._wall_ms()
        notice = await self._store.recall(message_id, self._new_id(now_ms), now_ms)
        if notice is not None:
            self._metrics.recalled("stored")
            connections = self._fanout.appended(notice, begun_at)
            entry = notice.publication
            return Recalled(message_id, record.channel, "stored", notice.epoch, entry.offset, entry.message_id, connections)
        was = "scheduled" if not record.offset and await self._store.message(message_id, 0) is None else "recalled"
        self._metrics.recalled(was)
        return Recalled(message_id, record.channel, was)

    async def _known(self, message_id: str) -> MessageRecord:
        record = await self._store.message(message_id, 0)
        if record is None or record.recalls:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no message of this id is scheduled or in a log")
        return record
