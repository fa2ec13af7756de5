"""What tests of bad requests share: both ways in, what the store holds, and somebody else who must not notice anything."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any, TypeVar

from streampush.protocol import messages as m
from streampush.protocol.codes import CODES, Code
from tests.integration.harness import WireClient
from tests.integration.test_rest_live import KEY, RestTestCase

OTHER_KEY = "sp_another-key-of-the-test"
NARROW_KEY = "sp_a-key-for-news-only"
SCOPES = 'scopes = ["publish", "read", "devices", "disconnect"]'
KEYS = "".join(
    f"""
[[rest.keys]]
name = "{name}"
sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"
publish = {publish}
{SCOPES}
"""
    for name, key, publish in (("test", KEY, '["*"]'), ("other", OTHER_KEY, '["*"]'), ("narrow", NARROW_KEY, '["news/*"]'))
)
LARGEST = (1 << 64) - 1
"""What the wire can say and no store can count to."""

TABLES = ("channels", "entries", "devices", "idempotency", "collapses", "receipts", "scheduled", "subscriptions", "dead_letters")

T = TypeVar("T")


class BadRequestCase(RestTestCase):
    """A node with its store on disk, a bystander from the beginning to the end, and a publisher of the test's own."""

    toml_extra = KEYS
    with_bystanders = True

    async def _invite(self) -> None:
        await super()._invite()
        await self.probed()

    async def restart(self, *settings: str) -> None:
        await super().restart(*settings)
        await self.probed()

    async def probed(self) -> None:
        """The node's own first message is stored, or it would look like the test's."""
        await self.counted("streampush_probes_total", result="ok")

    def rows(self) -> dict[str, int]:
        """How many rows the tables of the store have, as of its last commit; `cursors` are left out, they come a moment later."""
        with closing(sqlite3.connect(f"file:{self.root / 'streampush.db'}?mode=ro", uri=True)) as db:
            return {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}

    async def unchanged(self, attack: Callable[[], Awaitable[T]]) -> T:
        """The attack leaves nothing in the store."""
        before = self.rows()
        result = await attack()
        self.assertEqual(self.rows(), before)
        return result

    async def refused(self, publisher: WireClient, message: m.Message, code: Code, *, counter: str = "refused") -> m.Error:
        """A request that gets an Error of this code with the advice of the table, and is counted; the connection stays."""
        name, label = f"streampush_{counter}_total", str(int(code))
        before = self.metric(name, code=label)
        publisher.send(message, 5)
        error = await publisher.expect(m.Error)
        self.assertEqual((error.code, error.advice), (code, CODES[code].advice), error.detail)
        self.assertEqual(self.metric(name, code=label), before + 1)
        self.assertIsNone(publisher.lost)
        return error

    async def refused_publish(self, code: Code, status: int, fields: dict[str, Any], message: m.Publish) -> None:
        """Refused over both ways with the same code, both times counted, and nothing is stored."""

        async def attack() -> None:
            await self.refused(await self.publisher(), message, code)
            name, label = "streampush_refused_total", str(int(code))
            before = self.metric(name, code=label)
            answered, problem = await self.ask("POST", "/v1/publish", fields)
            self.assertEqual((answered, problem["code"]), (status, code), problem)
            self.assertEqual(problem["type"], f"urn:streampush:code:{int(code)}")
            self.assertEqual(self.metric(name, code=label), before + 1)

        await self.unchanged(attack)

    async def malformed(self, fields: dict[str, Any] | bytes, field: str) -> None:
        """Over REST it is no request at all: 400 that names the field, counted as such, and nothing is stored."""

        async def attack() -> None:
            before = self.metric("streampush_rest_requests_total", status="400")
            status, problem = await self.ask("POST", "/v1/publish", fields)
            self.assertEqual((status, problem.get("field", "")), (400, field), problem)
            self.assertEqual(self.metric("streampush_rest_requests_total", status="400"), before + 1)

        await self.unchanged(attack)

    async def published(self, **fields: Any) -> dict[str, Any]:
        """The answer to a publish over REST that is good."""
        status, answer = await self.ask("POST", "/v1/publish", {"payload": "x"} | fields)
        assert status == 200, answer
        return dict(answer)

    async def settled(self, table: str, number: int) -> None:
        """Waits until the table has so many rows."""
        await self.until(lambda: self.rows()[table] == number)
