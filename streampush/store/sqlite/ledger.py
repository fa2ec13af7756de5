"""What the writer knows without asking the file: totals, logs that were used lately, recipients. Valid within a transaction.

Changes are kept here and written once, at the end of a transaction; after one that failed the whole ledger is thrown away.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields, replace

from streampush.push.values import Head
from streampush.store.sqlite.rows import as_json, read_list, write_many

MAX_LOGS = 20_000
"""Channels whose state the writer remembers: some 400 bytes each."""

MAX_RECIPIENTS = 50_000
"""Names of devices and users that are known to exist."""


@dataclass(slots=True)
class Totals:
    """The row of `store`: what the whole store holds."""

    channels: int = 0
    publications: int = 0
    bytes: int = 0
    devices: int = 0
    moves: int = 0
    scheduled: int = 0
    dead_letters: int = 0
    outbox: int = 0
    keys: int = 0


_TOTALS = tuple(field.name for field in fields(Totals))
READ_TOTALS = f"SELECT {', '.join(_TOTALS)} FROM store"
_WRITE_TOTALS = f"UPDATE store SET {', '.join(f'{name} = ?' for name in _TOTALS)}"


class Log:
    """The row of a channel."""

    __slots__ = ("expiring", "floor", "floor_id", "id", "name", "oldest_at", "pushed", "receipted", "size", "top", "urgent")

    def __init__(
        self,
        id: int,
        name: str,
        top: int = 0,
        floor: int = 0,
        floor_id: str = "",
        size: int = 0,
        expiring: int = 0,
        urgent: int = 0,
        receipted: int = 0,
        oldest_at: int = 0,
        pushed: int = 0,
    ) -> None:
        self.id = id
        self.name = name
        self.top = top
        self.floor = floor
        self.floor_id = floor_id
        self.size = size
        self.expiring = expiring
        self.urgent = urgent
        self.receipted = receipted
        self.oldest_at = oldest_at
        self.pushed = pushed

    def __len__(self) -> int:
        return self.top - self.floor

    def head(self, epoch: str) -> Head:
        return Head(epoch, self.top, self.floor, self.floor_id, self.urgent)

    def row(self) -> tuple[int | str, ...]:
        """In the order of LOG_COLUMNS."""
        return (
            self.id,
            self.name,
            self.top,
            self.floor,
            self.floor_id,
            self.size,
            self.expiring,
            self.urgent,
            self.receipted,
            self.oldest_at,
            self.pushed,
        )


LOG_COLUMNS = "id, name, top, floor, floor_id, size, expiring, urgent, receipted, oldest_at, pushed"
_READ_LOGS = (
    "SELECT json_group_array(json_array(id, name, top, floor, floor_id, size, expiring, urgent, receipted, oldest_at, pushed))"
    " FROM channels WHERE name IN (SELECT value FROM json_each(?))"
)
_READ_NAMES = "SELECT json_group_array(json_array(id, name)) FROM channels WHERE id IN (SELECT value FROM json_each(?))"
_WRITE_LOGS = f"INSERT INTO channels ({LOG_COLUMNS}) VALUES"
_UPDATE_LOGS = (
    "ON CONFLICT (id) DO UPDATE SET top = excluded.top, floor = excluded.floor, floor_id = excluded.floor_id,"
    " size = excluded.size, expiring = excluded.expiring, urgent = excluded.urgent, receipted = excluded.receipted,"
    " oldest_at = excluded.oldest_at, pushed = excluded.pushed"
)


def read_logs(db: sqlite3.Connection, names: Iterable[str]) -> dict[str, Log]:
    """The logs of these names that are begun."""
    return {row[1]: Log(*row) for row in read_list(db, _READ_LOGS, (as_json(list(names)),))}


class Ledger:
    """The writer's memory, over its connection. `touched` logs and totals are written by `write`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.epoch: str = db.execute("SELECT epoch FROM store").fetchone()[0]
        self.totals = Totals(*db.execute(READ_TOTALS).fetchone())
        self._written = replace(self.totals)
        self._logs: OrderedDict[str, Log] = OrderedDict()
        self._touched: dict[str, Log] = {}
        self._recipients: OrderedDict[str, None] = OrderedDict()

    # ------------------------------------------------------------------------------------------------------------- logs

    def fetch(self, names: Iterable[str]) -> None:
        """Makes sure that `log` knows these, in one step."""
        missing = [name for name in dict.fromkeys(names) if name not in self._logs]
        if missing:
            self._logs.update(read_logs(self.db, missing))

    def log(self, name: str) -> Log | None:
        """The log, if it is begun; `fetch` was called for it in this transaction."""
        log = self._logs.get(name)
        if log is not None:
            self._logs.move_to_end(name)
        return log

    def names(self, ids: Iterable[int]) -> dict[int, str]:
        """The names of the logs with these ids, also of those that are begun in this transaction and not written yet."""
        wanted = set(ids)
        names = {log.id: log.name for log in self._touched.values() if log.id in wanted}
        missing = wanted - names.keys()
        return names | dict(read_list(self.db, _READ_NAMES, (as_json(list(missing)),))) if missing else names

    def begin(self, name: str) -> Log:
        """A new log."""
        self.totals.channels += 1
        log = self._logs[name] = Log(self.totals.channels, name)
        return log

    def touch(self, log: Log) -> None:
        """The log has changed."""
        self._touched[log.name] = log
        self._logs[log.name] = log

    def write(self) -> None:
        """Writes what has changed, before the transaction ends; and forgets what was not used for longest."""
        if self._touched:
            write_many(self.db, _WRITE_LOGS, [log.row() for log in self._touched.values()], _UPDATE_LOGS)
            self._touched.clear()
        if self.totals != self._written:
            self.db.execute(_WRITE_TOTALS, astuple(self.totals))
            self._written = replace(self.totals)
        while len(self._logs) > MAX_LOGS:
            self._logs.popitem(last=False)
        while len(self._recipients) > MAX_RECIPIENTS:
            self._recipients.popitem(last=False)

    def change(self) -> None:
        """Makes sure that this transaction writes something."""
        self.totals.moves += 1

    # ------------------------------------------------------------------------------------------------------- recipients

    def fetch_recipients(self, channels: Iterable[str]) -> None:
        """Makes sure that `is_recipient` knows these device: and user: channels."""
        missing = [name for name in dict.fromkeys(channels) if name not in self._recipients]
        if not missing:
            return
        found = read_list(self.db, _RECIPIENTS, (as_json(missing),))
        self._recipients.update(dict.fromkeys(found))

    def is_recipient(self, channel: str) -> bool:
        """Whether the device was remembered, or a device is bound to the user."""
        return channel in self._recipients

    def forget_recipient(self, channel: str) -> None:
        """It may not exist any more."""
        self._recipients.pop(channel, None)


_RECIPIENTS = """
SELECT json_group_array(value) FROM json_each(?) WHERE
    CASE WHEN substr(value, 1, 7) = 'device:' THEN EXISTS (SELECT 1 FROM devices WHERE id = substr(value, 8))
    ELSE EXISTS (SELECT 1 FROM devices WHERE user_id = substr(value, 6) AND user_id <> '') END
"""
