"""Orders of the application become pushes to Apple, and what Apple answers becomes what the application does next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.outcome import Why
from streampush.apns.push import check_push
from streampush.apns.sender import BUSY, HELD_LOOK, LATER, NO_APP, SEND_TIMEOUT, SPREAD, collapse_id
from streampush.apns.simulator import Reason
from streampush.apns.simulator.orders import Delay, Order, Reject, Stall, When
from streampush.config import ApnsConfig
from streampush.protocol.terms import Priority
from streampush.push.alerts import canonical, split
from streampush.push.values import Alert, PushAnswer, PushOrder, PushOutcome, PushToken
from tests.apns.apps_world import KEYS, WALL, AppsWorld
from tests.apns.simulator.providers import TOPIC

WALL_MS = int(WALL * 1000)
BACKGROUND = split(canonical(Alert(background=True), "device:phone"))[1]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AppsWorld]:
    world = AppsWorld(tmp_path)
    yield world
    world.stop()


def between(seconds: float) -> object:
    return pytest.approx(seconds * (1 + SPREAD / 2), rel=SPREAD / 2)


# ------------------------------------------------------------------------------------------------------------------- the push


def test_an_order_is_pushed_with_its_id_and_answered_as_delivered(world: AppsWorld) -> None:
    order = world.order()
    assert world.answer(order) == PushAnswer(PushOutcome.DELIVERED, apns_id=order.push_id)
    assert world.apple.ledger.times_accepted(order.push_id) == 1


def test_a_push_is_what_the_order_says(world: AppsWorld) -> None:
    push = world.sender._push(world.order(), world.apps.all["shop"], world.wall())
    assert json.loads(push.payload)["aps"] == {"alert": {"title": "Hello"}}
    assert (push.topic, push.push_type, push.priority) == (TOPIC, "alert", 10)
    assert push.expiration == int(WALL) + 86_400
    check_push(push)


@pytest.mark.parametrize(
    ("changes", "priority"),
    [
        ({"priority": Priority.HIGH}, 10),
        ({"priority": Priority.UNSPECIFIED}, 10),
        ({"priority": Priority.LOW}, 5),
        ({"alert": BACKGROUND, "priority": Priority.HIGH}, 5),
    ],
)
def test_low_priority_and_background_consider_the_battery(world: AppsWorld, changes: dict[str, object], priority: int) -> None:
    push = world.sender._push(world.order(**changes), world.apps.all["shop"], world.wall())
    assert push.priority == priority
    check_push(push)


@pytest.mark.parametrize(
    ("keep", "expires_in", "expiration"),
    [(60.0, 0, int(WALL) + 60), (60.0, 10, int(WALL) + 10), (60.0, 100, int(WALL) + 60), (0.0, 10, 0)],
)
def test_apple_keeps_a_push_no_longer_than_app_and_message_say(
    world: AppsWorld, keep: float, expires_in: int, expiration: int
) -> None:
    world.reload(world.app(expiration=keep))
    order = world.order(expires_at_ms=WALL_MS + expires_in * 1000 if expires_in else 0)
    assert world.sender._push(order, world.apps.all["shop"], world.wall()).expiration == expiration


def test_a_repeat_takes_the_place_of_the_first_on_the_device(world: AppsWorld) -> None:
    order = world.order()
    assert collapse_id(order) == order.message_id
    keyed = world.order(collapse_key="score", message_id="01JZ0000000000000000000001")
    assert collapse_id(keyed) == collapse_id(replace(keyed, message_id="01JZ0000000000000000000002"))
    assert collapse_id(keyed) != collapse_id(replace(keyed, channel="news/today"))


@given(st.text(max_size=300), st.text(max_size=100))
def test_whatever_the_collapse_key_apple_takes_it(key: str, channel: str) -> None:
    order = PushOrder("", "01JZ0000000000000000000000", channel, "phone", PushToken(b"", "", True), b"", Priority.NORMAL, key, 0)
    if key.isprintable() and channel.isprintable():
        assert 0 < len(collapse_id(order).encode()) <= 64
        assert collapse_id(order).isalnum()


def test_the_defaults_of_the_app_are_in_its_alerts_and_follow_a_reload(world: AppsWorld) -> None:
    def sound() -> object:
        push = world.sender._push(world.order(), world.apps.all["shop"], world.wall())
        return json.loads(push.payload)["aps"].get("sound")

    assert sound() is None
    world.reload(world.app(sound="ping.caf"))
    assert sound() == "ping.caf"


def test_a_message_to_many_devices_is_encoded_once(world: AppsWorld) -> None:
    pushes = [world.sender._push(world.order(), world.apps.all["shop"], world.wall()) for _ in range(2)]
    assert pushes[0].payload is pushes[1].payload


# ---------------------------------------------------------------------------------------------------------------- the answers


def test_a_token_of_no_app_is_not_sent_and_not_tried_again(world: AppsWorld) -> None:
    foreign = PushToken(bytes(32), "com.example.other", sandbox=True)
    production = PushToken(bytes(32), TOPIC, sandbox=False)
    for token in (foreign, production):
        assert world.answer(world.order(token=token)) == PushAnswer(PushOutcome.NOT_SENT, NO_APP)


def test_a_token_that_is_none_is_not_sent_and_said(world: AppsWorld) -> None:
    answer = world.answer(world.order(token=PushToken(b"", TOPIC, sandbox=True)))
    assert (answer.outcome, answer.again_in) == (PushOutcome.NOT_SENT, None)
    assert answer.reason == "device_token: is empty"


def test_the_patience_with_a_connected_device_is_its_apps(world: AppsWorld) -> None:
    world.reload(world.app(fallback_after=2.5))
    assert world.sender.fallback_after(world.order().token) == 2.5
    assert world.sender.fallback_after(PushToken(b"", "com.example.other", sandbox=True)) == 5.0


def rejecting(tmp_path: Path, order: Order, **changes: object) -> tuple[AppsWorld, PushAnswer]:
    world = AppsWorld(tmp_path, (order,))
    world.reload(world.app(**changes))
    answer = world.answer(world.order())
    world.stop()
    return world, answer


def test_a_push_that_is_wrong_is_given_up(tmp_path: Path) -> None:
    _, answer = rejecting(tmp_path, Reject(Reason.BAD_TOPIC))
    assert (answer.outcome, answer.reason, answer.again_in) == (PushOutcome.REJECTED, "BadTopic", None)


def test_a_service_that_fails_is_tried_again_when_it_says(tmp_path: Path) -> None:
    _, answer = rejecting(tmp_path, Reject(Reason.SERVICE_UNAVAILABLE, retry_after=600))
    assert (answer.outcome, answer.reason) == (PushOutcome.REJECTED, "ServiceUnavailable")
    assert answer.again_in == between(600.0)


def test_a_service_that_fails_and_says_nothing_gets_the_apps_wait(tmp_path: Path) -> None:
    _, answer = rejecting(tmp_path, Reject(Reason.INTERNAL_SERVER_ERROR), server_error_wait=120.0)
    assert answer.again_in == between(120.0)


def test_a_token_that_has_died_is_dropped_as_of_apples_time(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Reject(Reason.UNREGISTERED, ago=60),))
    answer = world.answer(world.order())
    assert (answer.outcome, answer.reason, answer.again_in) == (PushOutcome.REJECTED, "Unregistered", None)
    assert answer.token_dead_at_ms is not None
    assert abs(answer.token_dead_at_ms - (WALL_MS - 60_000)) < 1000
    world.stop()


def test_a_token_that_was_registered_since_is_kept(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Reject(Reason.UNREGISTERED, ago=60),))
    token = PushToken(bytes(32), TOPIC, sandbox=True, registered_at_ms=WALL_MS - 30_000)
    assert world.answer(world.order(token=token)).token_dead_at_ms is None
    world.stop()


def test_no_token_is_dropped_when_all_are_called_bad(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Reject(Reason.BAD_DEVICE_TOKEN),))
    answers = [world.answer(world.order(), 1.0) for _ in range(30)]
    assert {answer.token_dead_at_ms for answer in answers} == {None}
    world.stop()


def test_a_bad_token_among_good_ones_is_dropped(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Reject(Reason.BAD_DEVICE_TOKEN, When(at=5)),))
    answers = [world.answer(world.order(), 1.0) for _ in range(5)]
    assert [answer.token_dead_at_ms is None for answer in answers] == [True] * 4 + [False]
    world.stop()


def test_a_push_without_an_answer_is_unknown_in_time_and_may_come_again(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Stall(),))
    world.send(world.order())
    world.advance(SEND_TIMEOUT)
    (answer,) = world.answers
    assert answer.outcome is PushOutcome.UNKNOWN
    assert answer.again_in == between(LATER)
    world.stop()


def test_an_app_that_rather_loses_than_doubles_does_not_repeat_the_unknown(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Stall(),))
    world.reload(world.app(repeat_unknown="never"))
    answer = world.answer(world.order())
    assert (answer.outcome, answer.again_in) == (PushOutcome.UNKNOWN, None)
    world.stop()


def test_while_apple_refuses_the_key_pushes_wait_and_go_out_with_the_next_one(world: AppsWorld) -> None:
    world.reload(world.app("unknown"))
    answers = [world.answer(world.order()) for _ in range(2)]
    assert [answer.again_in for answer in answers] == [between(HELD_LOOK)] * 2
    assert [answer.held for answer in answers] == [True, True]
    assert answers[1].reason == Why.CREDENTIAL_STOPPED.value.replace("_", " ")
    at_the_reload: list[PushAnswer] = []
    world.sender.watch(lambda: at_the_reload.append(world.answer(world.order())))
    world.reload(world.app("second"))
    assert [answer.outcome for answer in at_the_reload] == [PushOutcome.DELIVERED]
    assert KEYS["second"].key.key_id == "KEY0000001"


def test_an_expired_message_is_not_sent(world: AppsWorld) -> None:
    answer = world.answer(world.order(expires_at_ms=WALL_MS - 1000))
    assert answer == PushAnswer(PushOutcome.NOT_SENT, "expired")


def test_a_stop_ends_what_waits_at_once_for_another_process(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path)
    for dialer in world.dialers:
        dialer.hanging = True
    world.send(world.order())
    world.advance(0.5)
    world.clients.stop()
    world.advance(0.0)
    assert world.answers == [PushAnswer(PushOutcome.NOT_SENT, "stopping", again_in=0.0)]
    world.stop()


SLOW = PushToken(bytes(32), "com.example.slow", sandbox=True)


def with_a_slow_app(world: AppsWorld, **changes: object) -> None:
    world.reload(world.app(), world.app(name="slow", bundle_id=SLOW.topic, **changes))


def test_a_slow_app_does_not_hold_up_a_fast_one(world: AppsWorld) -> None:
    with_a_slow_app(world, rate=1.0, burst=1)
    for _ in range(300):
        world.send(world.order(token=SLOW))
    world.advance(0.1)
    world.send(world.order(token=SLOW))  # the one that its rate let through has left a place
    assert not world.sender.has_room(SLOW)
    begun = len(world.answers)
    for _ in range(25):
        assert world.sender.has_room(world.order().token)
        world.send(world.order())
    world.advance(0.1)
    assert [answer.outcome for answer in world.answers[begun:]] == [PushOutcome.DELIVERED] * 25


def test_what_is_put_off_is_told_at_once_and_comes_again_in_a_line(world: AppsWorld) -> None:
    with_a_slow_app(world, rate=1.0, burst=1)
    for _ in range(300):
        world.send(world.order(token=SLOW))
    assert world.put_off.counts == {"slow": 225}
    assert {(answer.outcome, answer.reason) for answer in world.answers} == {(PushOutcome.NOT_SENT, BUSY)}
    pauses = [answer.again_in or 0.0 for answer in world.answers]
    assert pauses == sorted(pauses)
    assert len(set(pauses)) == 225


def test_an_app_alone_has_all_places(world: AppsWorld) -> None:
    world.reload(world.app(rate=1.0, burst=1))
    for _ in range(101):
        world.send(world.order())
    assert world.put_off.counts == {"shop": 1}


def test_no_answer_and_no_log_line_holds_the_device_token(world: AppsWorld) -> None:
    order = world.order()
    answer = world.answer(order)
    assert order.token.token.hex() not in repr((order, answer))


# ------------------------------------------------------------------------------------------------------------------- taken back


def test_a_push_that_waits_is_taken_back_and_is_to_be_looked_at_at_once(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, limits=ApnsConfig(max_in_flight=1))
    first, second = world.order(), world.order()
    world.send(first)
    world.send(second)
    world.sender.withdraw(second.push_id)
    assert world.answers == [PushAnswer(PushOutcome.NOT_SENT, "cancelled", again_in=0.0)]
    world.advance(1.0)
    assert world.answers[1:] == [PushAnswer(PushOutcome.DELIVERED, apns_id=first.push_id)]
    assert world.apple.ledger.times_accepted(second.push_id) == 0
    world.stop()


def test_a_push_that_is_written_is_not_taken_back(tmp_path: Path) -> None:
    world = AppsWorld(tmp_path, (Delay(2.0),))
    order = world.order()
    world.send(order)
    world.advance(1.0)
    world.sender.withdraw(order.push_id)
    world.advance(5.0)
    assert world.answers == [PushAnswer(PushOutcome.DELIVERED, apns_id=order.push_id)]
    world.stop()


def test_a_push_that_the_sender_has_not_is_not_missed(world: AppsWorld) -> None:
    order = world.order()
    assert world.answer(order).outcome is PushOutcome.DELIVERED
    world.sender.withdraw(order.push_id)
    assert world.answers == []
