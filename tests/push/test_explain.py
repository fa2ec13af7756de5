"""Each sentence of `streampush explain`, from facts that the test writes down."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streampush.protocol.codes import Advice
from streampush.protocol.terms import AppState
from streampush.push.explain import (
    FINE,
    MAX_LETTERS,
    NOTE,
    PROBLEM,
    ChannelFacts,
    ConnectionFacts,
    Facts,
    explain,
)
from streampush.push.limits import Level
from streampush.push.values import Close

NOW = 1_795_262_585_000  # 2026-11-21 12:03:05 UTC
TWO_HOURS = 7_200_000
YESTERDAY = 86_400_000

CONNECTION = ConnectionFacts("S1", "192.0.2.1:5000", NOW - TWO_HOURS, "demo", "1", AppState.FOREGROUND, 256, 100_000, 0, 0, True)
AWAY = Facts(
    "phone-1", NOW, known=True, user_id="ada", first_seen_ms=1, last_seen_ms=NOW - TWO_HOURS, push_token=True, max_attempts=10
)
HERE = replace(AWAY, connection=CONNECTION)


def row(**values: Any) -> ChannelFacts:
    return ChannelFacts(**{"channel": "news/today", "acknowledged": 4, "top": 9, "waiting": 0, **values})


def told(facts: Facts) -> dict[str, tuple[str, str]]:
    """Severity and text of each verdict by its kind, the first of a kind."""
    found: dict[str, tuple[str, str]] = {}
    for verdict in explain(facts).verdicts:
        found.setdefault(verdict.kind, (verdict.severity, verdict.text))
    return found


def test_device_that_was_never_seen_and_has_no_near_name() -> None:
    assert told(Facts("phone", NOW, known=False)) == {"unknown": (PROBLEM, "no device of this name was ever seen")}


def test_device_that_was_never_seen_gets_near_names() -> None:
    verdicts = told(Facts("phone1", NOW, known=False, near=("phone-1", "phone2")))
    assert verdicts["unknown"] == (PROBLEM, "no device of this name was ever seen; near names: phone-1, phone2")


def test_name_of_a_user_is_told_from_that_of_a_device() -> None:
    verdicts = told(Facts("ada", NOW, known=False, user_devices=("phone-1",)))
    assert verdicts["user"] == (NOTE, "ada is the name of a user; devices: phone-1")


def test_close_by_the_server_is_named_with_code_and_advice() -> None:
    facts = replace(AWAY, last_close=Close(2001, Advice.RECONNECT, "heartbeat lost", NOW))
    assert told(facts)["away"] == (PROBLEM, "away since 12:03:05 UTC: closed with 2001 heartbeat lost, advice RECONNECT")


def test_detail_of_a_close_is_shown_when_it_says_more_than_the_code() -> None:
    facts = replace(AWAY, last_close=Close(1005, Advice.RECONNECT, "the send buffer did not move", NOW))
    text = "away since 12:03:05 UTC: closed with 1005 slow consumer (the send buffer did not move), advice RECONNECT"
    assert told(facts)["away"] == (PROBLEM, text)


def test_close_on_another_day_has_its_date() -> None:
    facts = replace(AWAY, last_close=Close(2001, Advice.RECONNECT, "", NOW - YESTERDAY))
    assert told(facts)["away"][1].startswith("away since 2026-11-20 12:03:05 UTC: ")


def test_peer_that_left_without_a_code() -> None:
    facts = replace(AWAY, last_close=Close(0, Advice.UNSPECIFIED, "", NOW))
    assert told(facts)["away"] == (PROBLEM, "away since 12:03:05 UTC: it left by itself")


def test_code_that_is_not_known_is_shown_as_a_number() -> None:
    facts = replace(AWAY, last_close=Close(9001, Advice.UNSPECIFIED, "ours", NOW))
    assert told(facts)["away"][1] == "away since 12:03:05 UTC: closed with 9001 unknown code (ours)"


@pytest.mark.parametrize("advice", list(Advice))
def test_advice_that_keeps_a_client_away_is_said(advice: Advice) -> None:
    stays = {Advice.DO_NOT_RECONNECT, Advice.REAUTHENTICATE, Advice.RENEW_CERTIFICATE, Advice.UPGRADE}
    facts = replace(AWAY, last_close=Close(1006, advice, "", NOW))
    assert ("stays_away" in told(facts)) is (advice in stays)


def test_last_connection_whose_end_nobody_saw() -> None:
    text = "away; it connected last at 10:03:05 UTC, and how that connection ended is not known"
    assert told(AWAY)["away"] == (PROBLEM, text)


def test_device_that_never_connected() -> None:
    facts = replace(AWAY, first_seen_ms=NOW, last_seen_ms=0)
    text = "has never connected; it was made over REST at 12:03:05 UTC"
    assert told(facts)["never_connected"] == (PROBLEM, text)


def test_missing_push_token_matters_only_while_away() -> None:
    assert told(replace(AWAY, push_token=False))["no_token"][0] == NOTE
    assert "no_token" not in told(AWAY)
    assert "no_token" not in told(replace(HERE, push_token=False))


def test_connection_to_another_node() -> None:
    verdicts = told(replace(AWAY, other_node="node-2"))
    assert verdicts["elsewhere"] == (FINE, "connected to node node-2; ask there for its connection")
    assert "away" not in verdicts


def test_connected_device() -> None:
    assert told(HERE)["connected"] == (FINE, "connected since 10:03:05 UTC from 192.0.2.1:5000")


def test_window_that_is_full_of_messages() -> None:
    facts = replace(HERE, connection=replace(CONNECTION, open_messages=256))
    text = "its receive window is full: 256 of 256 messages are unacknowledged"
    assert told(facts)["window_full"] == (PROBLEM, text)


def test_window_that_is_full_of_bytes() -> None:
    facts = replace(HERE, connection=replace(CONNECTION, open_messages=1, open_bytes=100_000))
    text = "its receive window is full: 100000 of 100000 bytes are unacknowledged"
    assert told(facts)["window_full"] == (PROBLEM, text)


def test_peer_that_does_not_read() -> None:
    facts = replace(HERE, connection=replace(CONNECTION, has_room=False))
    assert told(facts)["not_reading"] == (PROBLEM, "it does not read: the send buffer of its connection is full")


def test_network_that_stutters() -> None:
    facts = replace(HERE, connection=replace(CONNECTION, missed=2, jitters=1))
    text = "its network stutters: 2 pings missed, 1 time silent for longer than normal on this connection"
    assert told(facts)["stutters"] == (NOTE, text)


def test_delivery_that_is_not_acknowledged() -> None:
    facts = replace(HERE, channels=(row(channel="user:ada", acknowledged=16, attempts=3, stuck_for=7200.0, next_try=80.0),))
    text = "has not acknowledged what is behind offset 16 of user:ada; "
    text += "attempt 4 of 10 is unanswered since 10:03:05 UTC, next in 80 s"
    assert told(facts)["unacknowledged"] == (PROBLEM, text)


def test_last_attempt_ends_in_a_dead_letter() -> None:
    facts = replace(HERE, channels=(row(attempts=9, stuck_for=60.0, next_try=80.0),))
    _, text = told(facts)["unacknowledged"]
    assert text.endswith("attempt 10 of 10 is unanswered since 12:02:05 UTC, a dead letter in 80 s")


def test_messages_that_the_application_wants_later() -> None:
    facts = replace(HERE, channels=(row(held=2),))
    assert told(facts)["held"] == (NOTE, "the application asked to have 2 messages of news/today later")


def test_one_message_waits() -> None:
    facts = replace(AWAY, channels=(row(waiting=1, oldest_waiting_ms=NOW - TWO_HOURS),))
    assert told(facts)["waiting"] == (PROBLEM, "1 message waits on news/today, since 10:03:05 UTC")


def test_messages_wait_and_the_oldest_has_its_time() -> None:
    facts = replace(AWAY, channels=(row(waiting=3, oldest_waiting_ms=NOW - TWO_HOURS),))
    assert told(facts)["waiting"] == (PROBLEM, "3 messages wait on news/today; the oldest since 10:03:05 UTC")


def test_what_waits_for_a_connected_device_is_a_note() -> None:
    assert told(replace(HERE, channels=(row(waiting=3),)))["waiting"] == (NOTE, "3 messages wait on news/today")


def test_nothing_waits() -> None:
    assert told(replace(HERE, channels=(row(),)))["nothing_waits"][0] == FINE
    assert "nothing_waits" not in told(replace(HERE, channels=(row(waiting=1),)))


def test_history_that_was_trimmed() -> None:
    facts = replace(AWAY, channels=(row(lost=12),))
    text = "news/today begins behind its place: 12 messages left the log before it took them"
    assert told(facts)["trimmed"] == (PROBLEM, text)


def test_log_that_was_begun_anew() -> None:
    assert told(replace(AWAY, channels=(row(restarted=True),)))["restarted"][0] == PROBLEM


def test_channels_beyond_the_first_are_summed_up() -> None:
    rows = tuple(row(channel=f"news/{number}", waiting=1) for number in range(8))
    texts = [verdict.text for verdict in explain(replace(AWAY, channels=rows)).verdicts if verdict.kind == "waiting"]
    assert (len(texts), texts[-1]) == (6, "the same on 3 more channels (waiting)")


def test_dead_letters_are_counted() -> None:
    verdicts = told(replace(HERE, dead_letters=1))
    assert verdicts["dead_letters"] == (NOTE, "1 dead letter: what it did not take for good; they can be listed and replayed")


def test_so_many_dead_letters_that_there_may_be_more() -> None:
    assert told(replace(HERE, dead_letters=MAX_LETTERS))["dead_letters"][1].startswith("at least 10 dead letters: ")


def test_requests_above_the_rate() -> None:
    verdicts = told(replace(HERE, rate=Level(10.0, 100.0, 0.2, 12)))
    assert verdicts["rate"] == (PROBLEM, "above its request rate of 10 a second: 12 requests refused with 3001")


def test_requests_above_a_rate_that_nodes_share() -> None:
    verdicts = told(replace(HERE, rate=Level(10.0, 100.0, 0.2, 12, shared=True)))
    assert verdicts["rate"] == (PROBLEM, "above its request rate of 10 a second: 12 requests refused with 3001 on this node")


def test_a_rate_that_was_used_up_on_another_node() -> None:
    verdicts = told(replace(HERE, rate=Level(10.0, 100.0, 0.2, 0, shared=True)))
    text = "has used up its request rate of 10 a second, which all nodes share; each counts its own refusals"
    assert verdicts["rate"] == (NOTE, text)
    assert "rate" not in told(replace(HERE, rate=Level(10.0, 100.0, 1.0, 0, shared=True)))
    assert "rate" not in told(replace(HERE, rate=Level(10.0, 100.0, 0.2, 0)))


def test_requests_that_were_above_the_rate() -> None:
    assert told(replace(HERE, rate=Level(10.0, 100.0, 50.0, 1)))["rate"][0] == NOTE
    assert "rate" not in told(replace(HERE, rate=Level(10.0, 100.0, 50.0, 0)))


def test_device_that_follows_no_topic() -> None:
    own = (row(channel="device:phone-1"), row(channel="user:ada"))
    assert told(replace(HERE, channels=own))["no_topics"] == (NOTE, "it follows no topic, only its own channels")
    assert "no_topics" not in told(replace(HERE, channels=(*own, row())))


def test_problems_come_first_and_what_is_fine_last() -> None:
    facts = replace(HERE, channels=(row(waiting=1, lost=1, held=1),), dead_letters=2)
    order = [verdict.severity for verdict in explain(facts).verdicts]
    assert order == sorted(order, key=(PROBLEM, NOTE, FINE).index)


def test_operations_page_says_what_to_do_about_every_kind() -> None:
    root = Path(__file__).parents[2]
    source = (root / "streampush/push/explain.py").read_text()
    kinds = set(re.findall(r'(?:Verdict\(|_each\(facts, )(?:PROBLEM, |NOTE, |FINE, )?"(\w+)"', source))
    page = (root / "docs/operations.md").read_text().partition("## Why is this device silent")[2].partition("\n## ")[0]
    described = {kind for row in re.findall(r"^\|([^|]*)\|", page, re.M) for kind in re.findall(r"`(\w+)`", row)}
    assert len(kinds) > 15
    assert kinds == described
