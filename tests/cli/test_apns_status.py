"""`streampush apns status`: what it prints, and the real command against a real node and a simulated Apple."""

from __future__ import annotations

from typing import Any

from streampush.apns.simulator import mint_key
from streampush.cli.apns_status import render_status
from tests.apns.minting import write_private
from tests.cli.commands import run_command, where
from tests.integration.harness import run
from tests.integration.test_apple_pushes import TOKEN, AppleTestCase
from tests.integration.test_rest_live import KEY
from tests.rest.test_openapi import SCHEMAS, check

APP: dict[str, Any] = {
    "name": "shop",
    "bundle_id": "com.example.shop",
    "environment": "production",
    "key_id": "",
    "certificate_days": 12.5,
    "stopped_by": "",
    "stopped_topics": [],
    "breaker": "closed",
    "clock_offset": 0.0,
    "queued": 1,
    "resting": 2,
    "held": 3,
    "in_flight": 4,
    "limit": 5,
    "delivered": 6,
    "others": [{"outcome": "not_sent", "reason": "no_connection", "pushes": 7}],
}


def test_an_app_has_lines_for_what_waits_and_what_ended() -> None:
    assert list(render_status({"apps": [APP], "routes": []})) == [
        "shop: com.example.shop, production, certificate, 12.5 days left",
        "  delivered   6",
        "  not sent no_connection: 7",
        "  waiting     1 for room, 2 for their next try, 3 for another credential",
        "  in flight   4 of at most 5",
    ]


def test_what_needs_somebody_is_marked_and_explained() -> None:
    app = APP | {"stopped_by": "InvalidProviderToken", "stopped_topics": ["com.example.x"], "breaker": "half_open", "others": []}
    app["clock_offset"] = -3600.0
    route = {"host": "h", "port": 443, "apps": ["shop"], "waiting": 8, "fault": "no address", "connections": [], "past": []}
    marked = [line for line in render_status({"apps": [app], "routes": [route]}) if "!!" in line]
    assert marked[0].startswith("  !! Apple refuses the key or certificate: InvalidProviderToken: the provider token is not valid")
    assert marked[1:] == [
        "  !! Apple refuses the topic com.example.x",
        "  !! too many pushes fail, hardly any go out: the breaker is half open",
        "  !! the clock of this machine is 3600 s ahead of Apple's: it takes provider tokens for invalid or expired",
        "  !! no connection: no address",
    ]


def test_a_certificate_that_has_expired_is_marked() -> None:
    app = APP | {"certificate_days": -10.9}
    lines = list(render_status({"apps": [app], "routes": []}))
    assert lines[0].endswith("certificate, 0 days left")
    assert lines[1] == "  !! the certificate has expired: renew it in Apple's developer account, reload"


def test_nothing_of_a_server_goes_to_the_terminal_as_it_is() -> None:
    link = {"number": 1, "address": "\x1b[2J", "state": "open", "in_flight": 0, "sent": 0, "answers": 0, "round_trip_ms": None}
    link["timeline"] = [{"ago": 1.0, "what": "\x07"}]
    route = {"host": "h", "port": 443, "apps": ["\n"], "waiting": 0, "fault": "\x00", "connections": [link], "past": [link]}
    assert all(line.isprintable() for line in render_status({"apps": [], "routes": [route]}))


def test_without_an_app_it_says_so() -> None:
    assert list(render_status({"apps": [], "routes": []})) == ["no [[apns.apps]] in force: nothing is pushed"]


class CommandTests(AppleTestCase):
    """In processes of their own."""

    timeout = 120

    async def command(self, *arguments: str) -> tuple[str, str, int]:
        assert self.node is not None
        return await run_command("apns", *arguments, *where(self.node.rest_port, self.root, KEY))

    @run
    async def test_status_tells_of_apps_and_connections(self) -> None:
        await self.gone(await self.registered())
        await self.result(await self.publish(alert={"title": "Your parcel"}))
        _, document = await self.ask("GET", "/v1/apns")
        check(document, SCHEMAS["ApnsStatus"])
        self.assertNotIn(TOKEN.hex(), str(document))
        out, err, code = await self.command("status")
        self.assertEqual((err, code), ("", 0))
        self.assertRegex(out, r"(?m)^shop: com\.example\.shop, sandbox, key SIMKEY0001$")
        self.assertRegex(out, r"(?m)^  delivered   1$")
        self.assertRegex(out, r"(?m)^  connection 1 to 127\.0\.0\.1, open: 1 sent, 1 answered, 0 in flight$")
        self.assertRegex(out, r"(?m)^ +\d+\.\d{3} s ago  connecting$")

    @run
    async def test_a_key_that_apple_refuses_is_status_1(self) -> None:
        await self.gone(await self.registered())
        write_private(self.root / "AuthKey_SIMKEY0001.p8", mint_key().p8)
        assert self.node is not None
        self.node.reload()
        await self.publish(alert={"title": "Your parcel"})
        await self.until(lambda: self.metric("streampush_apns_stopped", app="shop") == 1)
        out, err, code = await self.command("status")
        self.assertEqual((err, code), ("", 1))
        self.assertIn("  !! Apple refuses the key or certificate: InvalidProviderToken", out)
