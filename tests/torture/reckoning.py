"""The end of a run: everything is well again, and what must come has time to come; then the server is asked what it says."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor

from streampush.cli.exits import Failure
from streampush.cli.rest_client import RestClient
from tests.torture.journal import Journal
from tests.torture.node import pause
from tests.torture.phones import Kind
from tests.torture.verdict import Judge

QUIET = 45.0
"""Seconds without any news after which what is missing counts as lost."""

RECEIPTS = 300
"""Messages whose receipts are looked at."""

SETTLING = 60.0
"""Seconds for the last acknowledgements and receipts to be stored."""


class Reckoning:
    """Made at the end of a run."""

    def __init__(self, journal: Journal, judge: Judge, client: RestClient, kinds: list[Kind], random: Random) -> None:
        self.problems: list[str] = []
        self.sizes: dict[str, int] = {}
        self._journal = journal
        self._judge = judge
        self._client = client
        self._kinds = kinds
        self._random = random
        self._meant: list[tuple[str, str]] = []  # message id, channel: of messages to devices and users
        self._dead: set[tuple[str, str]] = set()

    def listen(self) -> None:
        """Hears what the journal has by now."""
        for record in self._journal.news():
            self._judge.hear(record)
            if record["kind"] == "ack" and record["channel"].startswith(("device:", "user:")):
                self._meant.append((record["message_id"], record["channel"]))

    async def rest(self) -> None:
        """Until everything has arrived, or nothing does any more."""
        since, known = reactor.seconds(), -1
        while reactor.seconds() - since < QUIET:
            self.listen()
            await self._note_dead_letters()
            self.listen()
            missing = len(self._judge.missing())
            if not missing:
                return
            if missing != known:
                known, since = missing, reactor.seconds()
            await pause(1.0)

    async def ask(self) -> None:
        """What the server says of backlogs and receipts; both have a moment to follow what has happened."""
        await self._await_empty_backlogs()
        await self._note_receipts()
        self.listen()

    async def _get(self, path: str) -> dict[str, Any]:
        try:
            status, answer = await self._client.ask("GET", path)
        except Failure as failure:
            return {"problem": str(failure)}
        return answer if status == 200 else {"problem": f"{path}: {status} {answer}"}

    async def _note_dead_letters(self) -> None:
        for kind in self._kinds:
            answer = await self._get(f"/v1/devices/{kind.device}/dead-letters?limit=100")
            for letter in answer.get("dead_letters", ()):
                entry = (kind.device, letter["message_id"])
                if entry not in self._dead:
                    self._dead.add(entry)
                    self._journal.write("dead", device=entry[0], message_id=entry[1])

    async def _await_empty_backlogs(self) -> None:
        """Each device has acknowledged everything, so its cursors stand at the end."""
        deadline = reactor.seconds() + SETTLING
        waiting = [kind.device for kind in self._kinds]
        answer: dict[str, Any] = {}
        while waiting and reactor.seconds() < deadline:
            answer = await self._get(f"/v1/devices/{waiting[0]}/backlog")
            if "channels" in answer and not any(row["waiting"] for row in answer["channels"]):
                waiting.pop(0)
            else:
                await pause(0.5)
        if waiting:
            self.problems.append(f"backlog: something still waits for {waiting[0]}: {answer}")

    async def _note_receipts(self) -> None:
        """Of some messages, and of all that are dead letters somewhere: asked again until the devices have reached an end."""
        wanted = dict(self._random.sample(self._meant, min(RECEIPTS, len(self._meant))))
        channels = dict(self._meant)
        wanted |= {message_id: channels[message_id] for _, message_id in self._dead if message_id in channels}
        deadline = reactor.seconds() + SETTLING
        for message_id in wanted:
            answer = await self._get(f"/v1/messages/{message_id}")
            while not self._settled(answer) and reactor.seconds() < deadline:
                await pause(0.5)
                answer = await self._get(f"/v1/messages/{message_id}")
            for row in answer.get("devices", ()):
                self._journal.write(
                    "receipt", device=row["device_id"], message_id=message_id, milestones=list(row["milestones_ms"])
                )

    @staticmethod
    def _settled(answer: dict[str, Any]) -> bool:
        ends = {"delivered", "processed", "rejected", "dead_lettered", "recalled", "expired"}
        return "devices" in answer and all(ends & set(row["milestones_ms"]) for row in answer["devices"])


def integrity(database: Path) -> str:
    """What SQLite says of the file, once the server has ended."""
    with sqlite3.connect(database) as connection:
        (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return str(answer)
