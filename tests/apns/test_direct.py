"""Pushes without a message: what Apple gets, how their ends are told, and what is refused before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from streampush.apns.direct import DirectPushes
from streampush.apns.link_state import LinkEnd
from streampush.apns.simulator import Reason
from streampush.apns.simulator.orders import Order, Reject, Stall, When
from streampush.errors import StoreUnavailable
from streampush.push.direct import BadDirectPush, DirectPush, DirectResult, NoApp
from streampush.push.values import Alert, PushOutcome, PushToken
from tests.apns.apps_world import WALL, AppsWorld
from tests.apns.simulator.providers import TOPIC

TOKEN = "a1" * 32


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AppsWorld]:
    world = AppsWorld(tmp_path)
    yield world
    world.stop()


class Dropping:
    """Remembers which tokens were to be dropped, and when they had died."""

    def __init__(self, away: bool = False) -> None:
        self.asked: list[tuple[PushToken, int]] = []
        self.away = away

    async def drop(self, token: PushToken, at_ms: int) -> bool:
        self.asked.append((token, at_ms))
        if self.away:
            raise StoreUnavailable("away")
        return True


def direct(world: AppsWorld, dropping: Dropping | None = None) -> DirectPushes:
    drop = (dropping or Dropping()).drop
    return DirectPushes(world.apps, world.clients, world.verdicts, world.clock, drop, wall=world.wall, new_id=world.new_id)


def result(world: AppsWorld, asked: DirectPush, timeout: float = 10.0, dropping: Dropping | None = None) -> DirectResult:
    """Raises what the push raises."""
    waiting: Deferred[DirectResult] = Deferred.fromCoroutine(direct(world, dropping).push(asked, timeout))
    found: list[Any] = []
    waiting.addBoth(found.append)
    world.advance(timeout)
    if not isinstance(found[0], DirectResult):
        found[0].raiseException()
    answer: DirectResult = found[0]
    return answer


def alert(**changes: Any) -> DirectPush:
    return DirectPush(**{"app": "", "device_token": TOKEN, "alert": Alert("Hello")} | changes)


def test_apple_gets_it_once_with_its_id(world: AppsWorld) -> None:
    found = result(world, alert(push_id="7e9d1b86-3d1c-5b3f-8f43-0c8d8a5b7f61"))
    assert (found.outcome, found.status, found.reason, found.repeat) == ("delivered", 200, "", False)
    assert found.apns_id == "7e9d1b86-3d1c-5b3f-8f43-0c8d8a5b7f61"
    assert world.apple.ledger.times_accepted(found.apns_id) == 1


def test_without_an_id_one_is_made(world: AppsWorld) -> None:
    assert world.apple.ledger.times_accepted(result(world, alert()).apns_id) == 1


def test_a_push_is_what_was_asked_for(world: AppsWorld) -> None:
    made = direct(world)._made
    app = world.apps.all["shop"]
    push = made(app, alert(ttl=60.0, collapse_id="score", priority=5))
    assert json.loads(push.payload) == {"aps": {"alert": {"title": "Hello"}}}
    assert (push.topic, push.priority, push.expiration, push.collapse_id) == (TOPIC, 5, int(WALL) + 60, "score")
    assert made(app, alert()).expiration == int(WALL + app.settings.expiration)
    assert made(app, alert(ttl=0.0)).expiration == 0
    push = made(app, alert(alert=Alert(background=True, custom='{"a":1}')))
    assert (push.push_type, push.priority) == ("background", 5)
    assert json.loads(push.payload) == {"aps": {"content-available": 1}, "a": 1}
    push = made(app, alert(alert=None, payload='{"x":1}', push_type="voip"))
    assert (push.push_type, push.topic, push.priority, push.payload) == ("voip", f"{TOPIC}.voip", 10, b'{"x":1}')


def test_other_topics_of_the_app_take_the_suffix_of_the_push_type_too(world: AppsWorld) -> None:
    world.reload(world.app(topics=("com.example.watch",)))
    made, app = direct(world)._made, world.apps.all["shop"]
    for topic in ("com.example.watch", "com.example.watch.voip"):
        push_type = "voip" if topic.endswith(".voip") else "alert"
        assert made(app, alert(alert=None, payload='{"x":1}', push_type=push_type, topic=topic)).topic == topic


def test_the_alert_gets_what_the_app_says_by_default(world: AppsWorld) -> None:
    world.reload(world.app(sound="ping.caf"))
    push = direct(world)._made(world.apps.all["shop"], alert())
    assert json.loads(push.payload)["aps"]["sound"] == "ping.caf"


def test_a_rejection_has_its_meaning_and_advice(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, orders=(Reject(Reason.DEVICE_TOKEN_NOT_FOR_TOPIC),))
    found = result(world, alert())
    assert (found.outcome, found.status, found.reason, found.repeat) == ("rejected", 400, "DeviceTokenNotForTopic", False)
    assert (found.meaning, found.advice.split()[0]) == ("the device token belongs to another app", "compare")
    world.stop()


@pytest.mark.parametrize(("collapse_id", "repeat"), [("", False), ("score", True)])
def test_without_an_answer_it_ends_in_time_and_may_be_repeated_if_it_replaces_the_first(
    tmp_path: Path, collapse_id: str, repeat: bool
) -> None:
    world = AppsWorld(tmp_path, orders=(Stall(),))
    found = result(world, alert(collapse_id=collapse_id), timeout=5.0)
    assert (found.outcome, found.status, found.reason, found.repeat) == ("unknown", 0, "no_answer", repeat)
    world.stop()


def test_without_a_connection_the_advice_is_why(world: AppsWorld) -> None:
    world.dialers[0].refusing = LinkEnd("nobody listens", permanent=True)
    found = result(world, alert(), timeout=60.0)
    assert (found.outcome, found.repeat, found.meaning) == ("not_sent", True, "Apple never had it")
    assert found.advice.endswith("nobody listens")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"device_token": "a1" * 32 + "x"}, "device_token"),
        ({"device_token": ""}, "device_token"),
        ({"alert": None, "payload": "{}"}, "payload"),
        ({"alert": None, "payload": '{"a":"' + "x" * 5000 + '"}'}, "payload"),
        ({"alert": None, "payload": '{"a":1}', "push_type": "nonsense"}, "push_type"),
        ({"topic": "com.example.other"}, "topic"),
        ({"priority": 7}, "priority"),
        ({"alert": Alert(background=True), "priority": 10}, "priority"),
        ({"ttl": 1e12}, "ttl"),
        ({"collapse_id": "x" * 65}, "collapse_id"),
        ({"push_id": "X"}, "apns_id"),
        ({"alert": Alert()}, "alert"),
        ({"alert": Alert("x", interruption_level="loud")}, "alert.interruption_level"),
        ({"alert": Alert("x", badge=1 << 40)}, "alert.badge"),
        ({"alert": Alert("x", custom='{"aps":1}')}, "alert.custom"),
    ],
)
def test_what_apple_would_reject_is_refused_and_nothing_goes_out(world: AppsWorld, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(BadDirectPush) as caught:
        result(world, alert(**changes))
    assert caught.value.field == field
    assert TOKEN not in str(caught.value)
    assert not world.apple.ledger.outcomes


def test_an_app_must_be_there_and_be_named_if_there_are_several(world: AppsWorld) -> None:
    with pytest.raises(NoApp, match="there is no app of this name, there are: shop") as caught:
        result(world, alert(app="nope"))
    assert caught.value.configured
    world.reload(world.app(), world.app(name="other", environment="production"))
    with pytest.raises(BadDirectPush, match="app: say which: shop, other"):
        result(world, alert())
    world.reload()
    with pytest.raises(NoApp, match="no app is configured") as caught:
        result(world, alert())
    assert not caught.value.configured


def test_a_node_that_stops_sends_nothing(world: AppsWorld) -> None:
    world.clients.stop()
    found = result(world, alert())
    assert (found.outcome, found.reason, found.repeat) == ("not_sent", "stopping", True)


def test_a_token_is_not_shown() -> None:
    assert TOKEN not in repr(alert())


# ---------------------------------------------------------------------------------------------------------------- dead tokens


def test_a_token_that_apple_calls_dead_is_dropped_as_of_apples_time(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Reject(Reason.UNREGISTERED, ago=60),))
    dropping = Dropping()
    assert result(world, alert(), dropping=dropping).token_dropped
    ((token, at_ms),) = dropping.asked
    assert token == PushToken(bytes.fromhex(TOKEN), TOPIC, sandbox=True)
    assert abs(at_ms - (int(WALL * 1000) - 60_000)) < 1000
    world.stop()


def test_a_token_is_dropped_of_the_topic_that_was_pushed_to(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Reject(Reason.UNREGISTERED),))
    dropping = Dropping()
    result(world, alert(alert=None, payload='{"a":1}', push_type="voip"), dropping=dropping)
    assert dropping.asked[0][0].topic == f"{TOPIC}.voip"
    world.stop()


@pytest.mark.parametrize("order", [Reject(Reason.BAD_TOPIC), Reject(Reason.BAD_DEVICE_TOKEN), Stall()])
def test_no_token_is_dropped_for_what_says_nothing_of_it(tmp_path: Path, order: Order) -> None:
    world = AppsWorld(tmp_path, (order,))
    dropping = Dropping()
    assert not result(world, alert(), dropping=dropping).token_dropped
    assert dropping.asked == []
    world.stop()


def test_pushes_with_and_without_a_message_share_the_verdict_about_bad_tokens(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Reject(Reason.BAD_DEVICE_TOKEN, When(at=2)),))
    assert world.answer(world.order(), 1.0).outcome is PushOutcome.DELIVERED  # so the configuration is right
    dropping = Dropping()
    assert result(world, alert(), dropping=dropping).token_dropped
    world.stop()


def test_a_store_that_is_away_keeps_the_token_and_not_the_outcome(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Reject(Reason.UNREGISTERED),))
    found = result(world, alert(), dropping=Dropping(away=True))
    assert (found.reason, found.token_dropped) == ("Unregistered", False)
    world.stop()


def test_a_key_that_apple_refuses_is_explained(world: AppsWorld) -> None:
    world.reload(world.app("unknown"))
    assert result(world, DirectPush("shop", TOKEN, Alert(title="Hi"))).reason == "InvalidProviderToken"
    answer = result(world, DirectPush("shop", TOKEN, Alert(title="Hi")))
    assert (answer.outcome, answer.reason, answer.repeat) == ("not_sent", "credential_stopped", True)
    assert answer.advice.startswith("Apple refuses the key or certificate: InvalidProviderToken: the provider token is not valid")


def test_a_topic_that_apple_refuses_is_explained(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Reject(Reason.TOPIC_DISALLOWED, When(at=1)),))
    assert result(world, DirectPush("shop", TOKEN, Alert(title="Hi"))).reason == "TopicDisallowed"
    answer = result(world, DirectPush("shop", TOKEN, Alert(title="Hi")))
    assert (answer.outcome, answer.reason) == ("not_sent", "topic_stopped")
    assert answer.advice.startswith("Apple refuses the topic: compare the app's bundle id")
    world.stop()
