"""The lines about the connection that `streampush listen` writes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from streampush.cli.listen import as_json, describe_event, recalled_as_json, recalled_as_line
from streampush.cli.main import main
from streampush.client.events import (
    BacklogEnded,
    ClientEvent,
    Connected,
    Degraded,
    Disconnected,
    Fault,
    PositionLost,
    Recalled,
    Stopped,
    StopReason,
    SubscriptionLost,
)
from streampush.protocol.codes import Advice, Code
from streampush.protocol.messages import Delivery, Welcome
from streampush.protocol.terms import LossReason, Priority


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Connected(Welcome(node="n", device_id="d", session_id="s")), "connected to n as d, session s"),
        (Connected(Welcome(node="n", device_id="d", user_id="u", session_id="s")), "connected to n as d of u, session s"),
        (Disconnected(0, Advice.UNSPECIFIED, "", 1.25), "disconnected: connection lost; next try in 1.2 s"),
        (
            Disconnected(Code.DRAINING, Advice.RECONNECT_ELSEWHERE, "bye", 2.0),
            "disconnected: 1004 bye; advice: reconnect elsewhere; next try in 2.0 s",
        ),
        (Disconnected(0, Advice.UNSPECIFIED, "x", None), ""),
        (Degraded(5), "away for 5 tries: short connections from now on"),
        (PositionLost("news/a", LossReason.TRIMMED, 7), "news/a: lost at most 7 messages (trimmed)"),
        (PositionLost("news/a", LossReason.EXPIRED, 1), "news/a: lost at most 1 message (expired)"),
        (
            PositionLost("news/a", LossReason.EPOCH_CHANGED, 0),
            "news/a: lost messages, it is not known how many (epoch changed)",
        ),
        (SubscriptionLost("news/a", 3003, "not yours"), "news/a: no longer followed: 3003 not yours"),
        (Fault(2003, "frame of 9 bytes"), "fault: 2003 frame of 9 bytes"),
        (BacklogEnded("news/a"), ""),
        (Stopped(StopReason.REQUESTED), ""),
    ],
)
def test_an_event_is_one_line_or_none(event: ClientEvent, line: str) -> None:
    assert describe_event(event) == line


def test_json_has_the_rarer_fields_only_if_they_say_something() -> None:
    plain = Delivery("news/a", 7, "m-1", b"x", priority=Priority.NORMAL)
    assert not json.loads(as_json(plain)).keys() & {"priority", "collapse_key", "expires_at_ms"}
    row = json.loads(as_json(replace(plain, priority=Priority.HIGH, collapse_key="offer", expires_at_ms=9)))
    assert (row["priority"], row["collapse_key"], row["expires_at_ms"]) == ("HIGH", "offer", 9)


def test_a_recall_is_a_line_like_a_message() -> None:
    notice = Recalled("news/a", "m-1", 7)
    assert recalled_as_line(notice) == "news/a #7  recalled: m-1"
    assert json.loads(recalled_as_json(notice)) == {"channel": "news/a", "offset": 7, "recalls": "m-1"}


def test_help_tells_what_each_start_does() -> None:
    words = " ".join(CliRunner().invoke(main, ["listen", "--help"]).output.split())
    assert "stored: where this device stopped; latest: skips what it has not read; earliest: repeats all that is kept." in words
