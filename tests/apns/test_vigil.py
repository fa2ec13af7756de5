"""Operators are told once when pushes do not come through, and when they do again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, LogPublisher, formatEvent

from streampush.apns.apps import Route
from streampush.apns.breaker import State
from streampush.apns.client_figures import ClientFigures
from streampush.apns.pool_figures import PoolFigures
from streampush.apns.signing_key import parse_signing_key
from streampush.apns.simulator import mint_key
from streampush.apns.vigil import IN_A_ROW, LOOK, Vigil, is_trouble

MINTED = mint_key()
ROUTE = Route("api.push.apple.com", 443, None, parse_signing_key(MINTED.p8, MINTED.key.team_id, MINTED.key.key_id))

QUIET = ClientFigures(
    queued=0,
    resting=0,
    held=0,
    queued_bytes=0,
    in_flight=0,
    limit=16,
    breaker=State.CLOSED,
    delivered=0,
    outcomes={},
    token_age=None,
    stopped_by="",
    stopped_topics=(),
    clock_offset=0.0,
)
UNUSED = PoolFigures(
    queued=0, queued_bytes=0, resting=0, in_flight=0, room=0, fault="", permanent=False, failures=0, links=(), past=()
)
REFUSED = replace(UNUSED, fault="api.push.apple.com (192.0.2.1 port 443): Connection was refused", failures=IN_A_ROW)
EXPIRED = replace(UNUSED, fault="the server's certificate is not trusted, or has expired", permanent=True, failures=1)


@dataclass
class Watched:
    """What the vigil sees, and the lines that it writes."""

    app: ClientFigures = QUIET
    pool: PoolFigures = UNUSED
    clock: Clock = field(default_factory=Clock)
    events: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.vigil = Vigil(self.clock, lambda: {"shop": self.app}, lambda: {ROUTE: self.pool})
        self.vigil._log = Logger(observer=LogPublisher(self.events.append))
        self.vigil.start()

    def ended(self, delivered: int = 0, **outcomes: int) -> None:
        """So many pushes more ended like this: `unknown__no_answer=3`."""
        known = dict(self.app.outcomes)
        for name, number in outcomes.items():
            what = (name.partition("__")[0], name.partition("__")[2])
            known[what] = known.get(what, 0) + number
        self.app = replace(self.app, delivered=self.app.delivered + delivered, outcomes=known)

    def look(self, times: int = 1) -> list[tuple[LogLevel, str]]:
        """The lines of the next looks."""
        self.events.clear()
        self.clock.pump([LOOK] * times)
        return [(event["log_level"], formatEvent(event)) for event in self.events]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_no_connection_is_told_once_and_its_end_too(watched: Watched) -> None:
    watched.pool = REFUSED
    text = "no connection to Apple at api.push.apple.com:443: api.push.apple.com (192.0.2.1 port 443): Connection was refused"
    assert watched.look(3) == [(LogLevel.warn, text)]
    watched.pool = UNUSED
    assert watched.look(2) == [(LogLevel.info, "Apple at api.push.apple.com:443 can be reached again, after 15 s")]


def test_a_fault_that_needs_somebody_is_an_error_at_once(watched: Watched) -> None:
    watched.pool = EXPIRED
    ((level, text),) = watched.look(2)
    assert (level, "certificate" in text) == (LogLevel.error, True)


def test_a_fault_that_comes_to_need_somebody_is_told_again(watched: Watched) -> None:
    watched.pool = REFUSED
    watched.look()
    watched.pool = EXPIRED
    assert [level for level, _ in watched.look(2)] == [LogLevel.error]


def test_one_try_that_failed_is_not_told(watched: Watched) -> None:
    watched.pool = replace(REFUSED, failures=IN_A_ROW - 1)
    assert watched.look(3) == []


def test_it_is_not_over_while_a_new_connection_is_only_tried(watched: Watched) -> None:
    watched.pool = REFUSED
    watched.look()
    watched.pool = replace(REFUSED, fault="")
    assert watched.look(2) == []


def test_pushes_that_all_fail_are_told_once_with_what_they_ended_in(watched: Watched) -> None:
    watched.ended(rejected__InternalServerError=1, unknown__no_answer=2)
    text = "pushes of shop to Apple fail: unknown no answer 2, rejected InternalServerError 1"
    assert watched.look() == [(LogLevel.warn, text)]
    watched.ended(unknown__no_answer=200)
    assert watched.look(3) == []
    watched.ended(delivered=1)
    assert watched.look(2) == [(LogLevel.info, "pushes of shop come through again, after 20 s")]


def test_failures_of_a_slow_trickle_add_up(watched: Watched) -> None:
    for _ in range(IN_A_ROW - 1):
        watched.ended(unknown__no_answer=1)
        assert watched.look(10) == []
    watched.ended(unknown__no_answer=1)
    assert len(watched.look()) == 1


def test_failures_beside_pushes_that_come_through_are_not_told(watched: Watched) -> None:
    for _ in range(5):
        watched.ended(delivered=1, unknown__no_answer=2)
        assert watched.look() == []


def test_an_open_breaker_is_told_and_it_is_over_when_it_has_closed(watched: Watched) -> None:
    watched.ended(delivered=10, rejected__ServiceUnavailable=20)
    watched.app = replace(watched.app, breaker=State.OPEN)
    text = "pushes of shop to Apple fail, and are held back: rejected ServiceUnavailable 20"
    assert watched.look() == [(LogLevel.warn, text)]
    watched.ended(delivered=1)
    assert watched.look() == []
    watched.ended(delivered=1)
    watched.app = replace(watched.app, breaker=State.CLOSED)
    assert [level for level, _ in watched.look()] == [LogLevel.info]


def test_a_breaker_that_opens_because_answers_are_late_says_so(watched: Watched) -> None:
    watched.ended(delivered=100)
    watched.app = replace(watched.app, breaker=State.HALF_OPEN)
    assert watched.look() == [(LogLevel.warn, "pushes of shop to Apple fail, and are held back: Apple answers late")]


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("delivered", ""),
        ("rejected", "BadCollapseId"),
        ("rejected", "Unregistered"),
        ("rejected", "InvalidProviderToken"),
        ("rejected", "TooManyRequests"),
        ("not_sent", "credential_stopped"),
        ("not_sent", "expired"),
        ("not_sent", "stopping"),
    ],
)
def test_what_concerns_one_push_or_is_told_elsewhere_is_no_trouble(outcome: str, reason: str, watched: Watched) -> None:
    assert not is_trouble(outcome, reason)
    watched.ended(**{f"{outcome}__{reason}": 100})
    assert watched.look() == []


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("rejected", "InternalServerError"),
        ("rejected", "BadDeviceToken"),
        ("rejected", "DeviceTokenNotForTopic"),
        ("rejected", "TooManyProviderTokenUpdates"),
        ("rejected", "ExpiredProviderToken"),
        ("rejected", "other"),
        ("rejected", "status 502"),
        ("not_sent", "no_connection"),
        ("not_sent", "queue_full"),
        ("refused", "refused_stream"),
        ("unknown", "connection_lost"),
    ],
)
def test_what_says_that_apple_or_the_way_to_it_does_not_work_is_trouble(outcome: str, reason: str) -> None:
    assert is_trouble(outcome, reason)


def test_an_app_that_is_gone_and_comes_back_begins_anew(watched: Watched) -> None:
    apps: Mapping[str, ClientFigures] = {}
    vigil = Vigil(watched.clock, lambda: apps, dict)
    vigil._log = Logger(observer=LogPublisher(watched.events.append))
    vigil.start()
    apps = {"shop": replace(QUIET, outcomes={("unknown", "no_answer"): 5})}
    assert len(watched.look()) == 1
    apps = {}
    assert watched.look() == []
    apps = {"shop": QUIET}
    assert watched.look() == []


def test_a_fault_of_its_own_does_not_end_it(watched: Watched) -> None:
    def broken() -> Mapping[str, ClientFigures]:
        raise RuntimeError("no figures")

    vigil = Vigil(watched.clock, broken, lambda: {ROUTE: watched.pool})
    vigil._log = Logger(observer=LogPublisher(watched.events.append))
    vigil.start()
    assert [level for level, _ in watched.look()] == [LogLevel.critical]
    watched.pool = REFUSED
    assert LogLevel.warn in [level for level, _ in watched.look()]


def test_it_stops(watched: Watched) -> None:
    watched.vigil.start()
    watched.vigil.stop()
    watched.vigil.stop()
    assert watched.clock.getDelayedCalls() == []
