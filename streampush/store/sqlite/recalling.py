"""Taking publications back: they are marked and freed, and a recall notice is appended for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streampush.push.values import Appended, Draft
from streampush.store.packing import FREED
from streampush.store.sqlite.appending import Appending
from streampush.store.sqlite.ledger import Ledger
from streampush.store.sqlite.rows import OFFSET_BITS, as_json

_MARK = f"""
UPDATE entries SET recalled_at = json_extract(j.value, '$[1]'), payload = x'', headers = '', weight = length(content_type),
    flags = flags | {FREED} FROM json_each(?) AS j WHERE entries.id = json_extract(j.value, '$[0]')
"""


@dataclass(frozen=True, slots=True)
class TakenBack:
    """An entry that is to be recalled. `freed`: bytes of it that count against the limits no longer."""

    entry: int
    message_id: str
    freed: int
    publisher: str
    notice_id: str
    at_ms: int


class Recalling:
    """The writer's way to recall what is in a log."""

    def __init__(self, ledger: Ledger, appending: Appending) -> None:
        self._ledger = ledger
        self._appending = appending

    def take_back(self, entries: Sequence[TakenBack], now_ms: int) -> list[Appended]:
        """Recalls entries that are not recalled yet; gives their notices, in the same order."""
        if not entries:
            return []
        ledger = self._ledger
        numbers = [one.entry >> OFFSET_BITS for one in entries]
        names = ledger.names(numbers)
        ledger.fetch(names.values())
        ledger.db.execute(_MARK, (as_json([(one.entry, one.at_ms) for one in entries]),))
        notices = []
        for one, number in zip(entries, numbers, strict=True):
            log = ledger.log(names[number])
            assert log is not None
            log.size -= one.freed
            ledger.totals.bytes -= one.freed
            draft = Draft(log.name, one.notice_id, b"", one.at_ms, publisher=one.publisher)
            notices.append((log, draft, one.message_id))
        return self._appending.notices(notices, now_ms)
