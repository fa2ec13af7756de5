"""What was promised and what happened, as lines of JSON: written while the torture runs, judged afterwards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file of records; each has a `kind`.

    - `ack`: a publisher was told that its message is stored: `publisher`, `channel`, `offset` (0: it is scheduled), `message_id`,
      `text` (unique); `may_go` if it has a time to live, `collapse_key` if it has one.
    - `recalling`, `recalled`: a publisher asked for a recall, and was told that it is stored: `channel`, `message_id`.
    - `wrong`: the server refused what it must not refuse: `text`.
    - `began`: a device's application was started: `device`, `positions` (channel to offset) that it remembered.
    - `got`: the application was given a message: `device`, `channel`, `offset`, `message_id`, `text`, `later` if it asked for
      it again instead of taking it.
    - `notice`: the application was told of a recall: `device`, `channel`, `message_id`.
    - `recovered`, `lost`: what a device was told of a channel when it came back: `device`, `channel`, and `offset` and `message_id`
      of the proven position, or the `reason`.
    - `fault`: what was done to the server: `what`.
    - `dead`: at the end, the server has a dead letter: `device`, `message_id`.
    - `receipt`: at the end, what the server says of a message: `device`, `message_id`, `milestones`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._reader = path.open(encoding="utf-8")
        self.counts: Counter[str] = Counter()

    def write(self, kind: str, **fields: Any) -> None:
        """One record, in the file when this returns."""
        self.counts[kind] += 1
        self._file.write(json.dumps({"kind": kind, **fields}) + "\n")

    def news(self) -> Iterator[dict[str, Any]]:
        """The records since this was asked last, read from the file."""
        for line in self._reader:
            yield json.loads(line)

    def close(self) -> None:
        self._file.close()
        self._reader.close()
