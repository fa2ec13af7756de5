"""Channels for Live Activities in the words of backends, on the simulated Apple."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from streampush.apns.live import LiveChannels
from streampush.apns.simulator import Reason
from streampush.apns.simulator.orders import Order, RefuseStream, Reject, Stall
from streampush.push.direct import BadDirectPush, NoApp
from streampush.push.live import LiveAction, LiveRequest, LiveResult
from tests.apns.apps_world import AppsWorld

PAYLOAD = '{"aps":{"event":"update"}}'


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AppsWorld]:
    world = AppsWorld(tmp_path)
    yield world
    world.stop()


def ask(world: AppsWorld, action: LiveAction, **wishes: Any) -> LiveResult:
    """Raises what the request raises."""
    live = LiveChannels(world.apps, world.clients, world.clock, wall=world.wall)
    found: list[Any] = []
    Deferred.fromCoroutine(live.ask(LiveRequest(action, **wishes), 10.0)).addBoth(found.append)
    world.advance(11.0)
    if not isinstance(found[0], LiveResult):
        found[0].raiseException()
    answer: LiveResult = found[0]
    return answer


def test_a_channel_from_its_beginning_to_its_end(world: AppsWorld) -> None:
    made = ask(world, LiveAction.CREATE, keep_latest=True)
    assert (made.outcome, made.keep_latest) == ("done", True)
    assert ask(world, LiveAction.LIST, app="shop").channels == (made.channel,)
    assert ask(world, LiveAction.READ, channel=made.channel) == made
    sent = ask(world, LiveAction.PUBLISH, channel=made.channel, payload=PAYLOAD, ttl=60.0)
    assert (sent.outcome, sent.channel, len(sent.request_id)) == ("done", made.channel, 36)
    assert ask(world, LiveAction.DELETE, channel=made.channel) == LiveResult("done", channel=made.channel)
    again = ask(world, LiveAction.DELETE, channel=made.channel)
    assert (again.outcome, again.status, again.reason, again.repeat) == ("rejected", 400, "ChannelNotRegistered", False)
    assert again.meaning
    expected = {(action.value, "done", ""): 1 for action in LiveAction} | {("delete", "rejected", "ChannelNotRegistered"): 1}
    assert world.put_off.broadcasts == Counter(expected)


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"channel": "!", "payload": PAYLOAD}, "channel"),
        ({"channel": "aa==", "payload": ""}, "payload"),
        ({"channel": "aa==", "payload": PAYLOAD, "priority": 7}, "priority"),
        ({"channel": "aa==", "payload": PAYLOAD, "ttl": 1e12}, "ttl"),
        ({"channel": "aa==", "payload": PAYLOAD, "request_id": "x"}, "request_id"),
    ],
)
def test_what_apple_would_reject_in_any_case_names_its_field(world: AppsWorld, wishes: dict[str, Any], field: str) -> None:
    with pytest.raises(BadDirectPush) as caught:
        ask(world, LiveAction.PUBLISH, **wishes)
    assert caught.value.field == field


def test_an_app_that_is_not_there_is_said(world: AppsWorld) -> None:
    with pytest.raises(NoApp):
        ask(world, LiveAction.LIST, app="none")


@pytest.mark.parametrize(
    ("order", "action", "outcome", "repeat"),
    [
        (Stall(), LiveAction.CREATE, "unknown", False),
        (Stall(), LiveAction.PUBLISH, "unknown", False),
        (Stall(), LiveAction.LIST, "unknown", True),
        (Stall(), LiveAction.DELETE, "unknown", True),
        (RefuseStream(), LiveAction.CREATE, "refused", True),
        (Reject(Reason.SERVICE_UNAVAILABLE, retry_after=7), LiveAction.CREATE, "rejected", True),
        (Reject(Reason.INVALID_PROVIDER_TOKEN), LiveAction.CREATE, "rejected", False),
    ],
)
def test_whether_it_may_be_asked_again_without_being_done_twice(
    tmp_path: Path, order: Order, action: LiveAction, outcome: str, repeat: bool
) -> None:
    world = AppsWorld(tmp_path, (order,))
    wishes = {} if action in (LiveAction.CREATE, LiveAction.LIST) else {"channel": "aa==", "payload": PAYLOAD}
    found = ask(world, action, **wishes)
    assert (found.outcome, found.repeat) == (outcome, repeat), found
    world.stop()
