"""The client for one app's pushes: what it does about each answer, and when nothing goes. In memory, on a fake clock."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from streampush.apns.breaker import BreakerPolicy, State
from streampush.apns.client_limits import ClientLimits
from streampush.apns.concurrency import ConcurrencyPolicy
from streampush.apns.errors import BadPush
from streampush.apns.link_state import LinkEnd
from streampush.apns.outcome import Delivered, NotSent, Outcome, Rejected, Unknown, Why
from streampush.apns.provider_token import MIN_INTERVAL, ProviderToken
from streampush.apns.rates import AppRate
from streampush.apns.retry import RetryPolicy
from streampush.apns.simulator import Reason, UpdateScope, When
from streampush.apns.simulator.orders import Delay, Freeze, Reject, ResetStream
from streampush.observe.log import json_line
from tests.apns.clienting import STRANGERS_KEY, WALL, ClientWorld


def narrow(*orders: object, **more: object) -> ClientWorld:
    """One push at a time, so that the others wait."""
    policy = ConcurrencyPolicy(start=1, floor=1)
    return ClientWorld(orders, concurrency=policy, ceiling=1, **more)  # type: ignore[arg-type]


def in_log(action: Callable[[], None]) -> list[LogEvent]:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        action()
    finally:
        globalLogPublisher.removeObserver(events.append)
    return events


def test_push_fires_with_the_outcome() -> None:
    world = ClientWorld()
    results: list[Outcome] = []
    push = world.new_push()
    world.client.push(push, deadline=5.0).addCallback(results.append)
    assert results == []
    world.advance(1)
    assert results == [Delivered(push.apns_id)]
    world.stop()


def test_apple_sees_the_push_as_it_was_given() -> None:
    world = ClientWorld()
    world.push(expiration=1_800_000_000, collapse_id="score", priority=5)
    world.push(expiration=0)
    world.push(priority=5, push_type="background", payload=b'{"aps":{"content-available":1}}')
    world.advance(1)
    records = list(world.apple.ledger)
    assert world.delivered() == 3
    assert [(each.apns_id, each.collapse_id, each.push_type, each.payload_size) for each in records] == [
        (world.sent[0].push.apns_id, "score", "alert", len(world.sent[0].push.payload)),
        (world.sent[1].push.apns_id, "", "alert", len(world.sent[1].push.payload)),
        (world.sent[2].push.apns_id, "", "background", 31),
    ]
    world.stop()


def test_what_apple_would_reject_is_not_sent() -> None:
    world = ClientWorld()
    with pytest.raises(BadPush, match="priority"):
        world.client.push(world.new_push(push_type="background"), deadline=5.0)
    assert world.client.figures().in_flight == 0
    world.stop()


def test_a_push_without_an_id_gets_one() -> None:
    world = ClientWorld()
    sent = world.push(apns_id="")[0]
    world.advance(1)
    assert isinstance(sent.outcome, Delivered)
    assert sent.sending is not None
    assert sent.outcome.apns_id == sent.sending.apns_id
    assert world.apple.ledger.times_accepted(sent.sending.apns_id) == 1


def test_the_development_environment_tells_unique_ids() -> None:
    world = ClientWorld(unique_ids=True)
    world.push()
    world.advance(1)
    assert isinstance(world.sent[0].outcome, Delivered)
    assert world.sent[0].outcome.unique_id
    world.stop()


def test_a_callers_fault_is_logged_and_harms_no_other_push() -> None:
    world = ClientWorld()

    def fail(_outcome: Outcome) -> None:
        raise ZeroDivisionError

    world.client.send(world.new_push(), 5.0, fail)
    world.push(3)
    events = in_log(lambda: world.advance(1))
    assert [event["log_failure"].type for event in events if "log_failure" in event] == [ZeroDivisionError]
    assert world.delivered() == 3
    world.stop()


# -------------------------------------------------------------------------------------------------------------- waiting


def test_a_full_queue_is_an_answer_at_once() -> None:
    world = narrow(limits=ClientLimits(max_queued=5))
    world.push(10)
    assert [sent.outcome for sent in world.sent] == [None] * 6 + [NotSent(Why.QUEUE_FULL)] * 4
    world.advance(5)
    assert world.delivered() == 6
    world.stop()


def test_a_queue_is_full_by_bytes_too() -> None:
    world = narrow(limits=ClientLimits(max_queued_bytes=100))
    world.push(6, payload=b'{"aps":{"alert":"thirty bytes"}}')
    assert [sent.outcome for sent in world.sent].count(NotSent(Why.QUEUE_FULL)) == 2
    world.advance(5)
    world.stop()


def test_who_waits_longest_for_the_nearest_deadline_goes_first() -> None:
    world = narrow(Delay(1.0))
    world.push(1)
    late = world.push(1, timeout=9.0)[0]
    soon = world.push(1, timeout=5.0)[0]
    world.advance(3)
    assert isinstance(soon.outcome, Delivered)
    assert late.outcome is None
    world.advance(5)
    world.stop()


def test_what_waits_ends_at_its_deadline() -> None:
    world = narrow(Delay(5.0))
    world.push(1, timeout=9.0)
    waiting = world.push(1, timeout=2.0)[0]
    world.advance(2.0)
    assert waiting.outcome == NotSent(Why.DEADLINE)
    world.advance(5)
    world.stop()


def test_what_expires_while_it_waits_is_not_sent() -> None:
    world = narrow(Delay(2.0))
    world.push(1)
    waiting = world.push(1, expiration=int(world.wall()) + 1)[0]
    world.advance(3.0)
    assert waiting.outcome == NotSent(Why.EXPIRED)
    world.stop()


def test_what_has_expired_is_not_sent_and_what_has_not_yet_is() -> None:
    world = ClientWorld()
    over = world.push(1, expiration=int(world.wall()))[0]
    fresh = world.push(1, expiration=int(world.wall()) + 2)[0]
    world.advance(1)
    assert over.outcome == NotSent(Why.EXPIRED)
    assert isinstance(fresh.outcome, Delivered)
    world.stop()


def test_a_deadline_that_has_passed_is_an_answer_at_once() -> None:
    world = ClientWorld()
    world.advance(5)
    sent = world.push(1, timeout=0.0)[0]
    assert sent.outcome == NotSent(Why.DEADLINE)


def test_an_app_keeps_its_rate() -> None:
    world = ClientWorld(rates={"shop": AppRate(10.0, 5.0)})
    world.push(25, timeout=10)
    world.advance(1.05)
    assert 14 <= world.delivered() <= 16
    world.advance(5)
    assert world.delivered() == 25
    world.stop()


def test_dead_tokens_do_not_hold_up_the_healthy() -> None:
    world = ClientWorld((Delay(0.2),), concurrency=ConcurrencyPolicy(start=20), ceiling=20)
    dead = "dd" * 32
    world.devices.unregister(dead, WALL - 60)
    world.push(1, device_token=dead)
    world.advance(1)
    doomed = world.push(40, timeout=30, device_token=dead)
    world.push(18)
    world.advance(0.4)
    assert world.delivered() == 18
    assert sum(bool(sent.outcomes) for sent in doomed) <= 4
    world.advance(20)
    assert {type(sent.outcome) for sent in doomed} == {Rejected}
    world.stop()


# -------------------------------------------------------------------------------------------------------------- taking back


def test_what_waits_can_be_taken_back() -> None:
    world = narrow()
    world.push(3)
    assert world.sent[1].sending is not None
    assert world.client.cancel(world.sent[1].sending)
    assert world.sent[1].outcome == NotSent(Why.CANCELLED)
    assert not world.client.cancel(world.sent[1].sending)
    world.advance(2)
    assert world.delivered() == 2
    world.stop()


def test_what_waits_for_a_connection_can_be_taken_back() -> None:
    world = ClientWorld()
    sending = world.push(3)[1].sending
    assert sending is not None
    assert world.client.cancel(sending)
    world.advance(2)
    assert world.delivered() == 2
    world.stop()


def test_what_is_under_way_cannot_be_taken_back() -> None:
    world = ClientWorld((Delay(1.0),))
    sent = world.push(1)[0]
    world.advance(0.5)
    assert sent.sending is not None
    assert not world.client.cancel(sent.sending)
    world.advance(1)
    assert isinstance(sent.outcome, Delivered)
    world.stop()


def test_a_cancelled_deferred_fires_with_what_became_of_the_push() -> None:
    world = narrow()
    world.push(1)
    result: list[Outcome] = []
    waiting: Deferred[Outcome] = world.client.push(world.new_push(), deadline=5.0)
    waiting.addCallback(result.append)
    waiting.cancel()
    assert result == [NotSent(Why.CANCELLED)]
    world.advance(1)
    world.stop()


def test_a_deferred_of_a_push_under_way_is_cancelled_as_others_are() -> None:
    world = ClientWorld((Delay(1.0),))
    result: list[Failure] = []
    under_way = world.client.push(world.new_push(), deadline=5.0)
    under_way.addErrback(result.append)
    world.advance(0.5)
    under_way.cancel()
    assert result[0].check(CancelledError)
    world.advance(3)
    assert world.apple.ledger.accepted == 1
    world.stop()


def test_stopping_ends_what_waits_and_lets_the_rest_be_answered() -> None:
    world = narrow(Delay(1.0))
    world.push(3)
    world.advance(0.5)
    world.client.stop()
    assert [sent.outcome for sent in world.sent] == [None, NotSent(Why.STOPPING), NotSent(Why.STOPPING)]
    assert world.push(1)[0].outcome == NotSent(Why.STOPPING)
    world.advance(1)
    assert world.delivered() == 1
    world.stop()


# ---------------------------------------------------------------------------------------------------------- Apple's reasons


def test_retry_after_is_obeyed() -> None:
    world = ClientWorld((Reject(Reason.SERVICE_UNAVAILABLE, When(at=1), retry_after=3),))
    sent = world.push(1, timeout=20)[0]
    world.advance(2.9)
    assert sent.outcome is None
    world.advance(2)
    assert isinstance(sent.outcome, Delivered)
    assert world.metrics.of("push_repeated") == [("shop", "rejected", "ServiceUnavailable")]
    world.stop()


def test_a_retry_after_beyond_the_deadline_ends_the_push() -> None:
    world = ClientWorld((Reject(Reason.SERVICE_UNAVAILABLE, When(at=1), retry_after=30),))
    sent = world.push(1, timeout=20)[0]
    world.advance(1)
    assert sent.outcome == Rejected(503, "ServiceUnavailable", apns_id=sent.push.apns_id, retry_after=30.0)
    world.stop()


def test_an_error_of_apples_waits_a_quarter_of_an_hour() -> None:
    world = ClientWorld((Reject(Reason.INTERNAL_SERVER_ERROR, When(at=1)),), retry=RetryPolicy())
    sent = world.push(1, timeout=3000)[0]
    world.advance(899)
    assert sent.outcome is None
    world.advance(10)
    assert isinstance(sent.outcome, Delivered)
    world.stop()


def test_a_device_that_gets_too_many_rests_while_others_go_on() -> None:
    world = ClientWorld((Reject(Reason.TOO_MANY_REQUESTS, When(at=1)),))
    token = "ab" * 32
    first = world.push(1, timeout=20, device_token=token)[0]
    world.advance(1)
    second = world.push(1, timeout=20, device_token=token)[0]
    impatient = world.push(1, timeout=2, device_token=token)[0]
    other = world.push(1)[0]
    world.advance(1)
    assert (first.outcome, second.outcome) == (None, None)
    assert isinstance(impatient.outcome, NotSent)
    assert impatient.outcome.why is Why.DEVICE_RESTS
    assert 3 < (impatient.outcome.retry_after or 0) < 5
    assert isinstance(other.outcome, Delivered)
    world.advance(15)
    assert isinstance(first.outcome, Delivered)
    assert isinstance(second.outcome, Delivered)
    world.stop()


def test_a_shutdown_moves_pushes_to_another_connection() -> None:
    world = ClientWorld((Reject(Reason.SHUTDOWN, When(at=3)),))
    world.push(10)
    world.advance(5)
    assert world.delivered() == 10
    assert world.apple.ledger.connections == 2
    world.stop()


def test_an_expired_provider_token_is_replaced_and_the_push_sent_again() -> None:
    world = ClientWorld((Reject(Reason.EXPIRED_PROVIDER_TOKEN, When(at=2)),))
    world.push(1)
    world.advance(MIN_INTERVAL + 1)
    world.push(5)
    world.advance(2)
    assert world.delivered() == 6
    assert world.token.epoch == 2
    world.stop()


def test_a_provider_token_that_expired_too_early_ends_the_push_in_time() -> None:
    world = ClientWorld((Reject(Reason.EXPIRED_PROVIDER_TOKEN),))
    sent = world.push(1)[0]
    world.advance(10)
    assert isinstance(sent.outcome, Rejected)
    assert sent.outcome.reason == "ExpiredProviderToken"
    assert world.token.epoch == 1
    world.stop()


def written(events: list[LogEvent]) -> list[str]:
    """What the product's log shows of them."""
    lines = [json.loads(json_line(event)) for event in events if event["log_namespace"].startswith("streampush")]
    return [line["message"] for line in lines if line["level"] != "info"]


def test_a_provider_token_that_expired_too_early_is_told_once_in_an_hour() -> None:
    world = ClientWorld((Reject(Reason.EXPIRED_PROVIDER_TOKEN),))
    world.push(3, timeout=5000)
    text = "Apple calls a provider token of shop expired that is not; the next one goes out in 1200 s: set the clock"
    assert written(in_log(lambda: world.advance(1))) == [text]
    world.push(3)
    assert written(in_log(lambda: world.advance(1))) == []
    world.stop()


def test_too_many_provider_tokens_are_told_once_in_an_hour() -> None:
    world = ClientWorld((Reject(Reason.TOO_MANY_PROVIDER_TOKEN_UPDATES),))
    world.push(10)
    text = "Apple has seen too many provider tokens of shop, as after many starts in a row: its connection rests for 60 s"
    assert written(in_log(lambda: world.advance(200))) == [text]
    world.stop()


def test_a_clock_that_makes_provider_tokens_invalid_is_told_with_the_credential_that_is_refused() -> None:
    world = ClientWorld(wall_error=3600.0)
    world.push(3)
    clock, credential = written(in_log(lambda: world.advance(1)))
    assert clock == "the clock of this machine is 3600 s ahead of Apple's: provider tokens and expirations are wrong by as much"
    assert credential.startswith("Apple refuses the credential of shop (403 InvalidProviderToken)")
    assert world.metrics.of("clock_skewed") == [(-3600,)]
    world.stop()


def test_many_that_come_back_expired_share_one_new_token() -> None:
    world = ClientWorld((Delay(0.5), Reject(Reason.EXPIRED_PROVIDER_TOKEN, When(after=1, until=11))))
    world.push(1)
    world.advance(MIN_INTERVAL + 1)
    world.push(10)
    world.advance(5)
    assert world.delivered() == 11
    assert world.token.epoch == 2
    world.stop()


def test_a_connection_that_saw_too_many_tokens_rests() -> None:
    world = ClientWorld((Reject(Reason.TOO_MANY_PROVIDER_TOKEN_UPDATES, When(at=3)),))
    world.push(10)
    world.advance(2)
    assert world.delivered() == 10
    assert world.apple.ledger.connections == 2
    moments = [moment.what for link in world.pool.figures().links for moment in link.moments]
    assert "rests for 60 s" in moments
    world.advance(100)
    assert [link.state.value for link in world.pool.figures().links].count("open") == 2
    world.stop()


def test_a_rest_ends_and_the_connection_takes_pushes_again() -> None:
    world = ClientWorld((Reject(Reason.TOO_MANY_PROVIDER_TOKEN_UPDATES, When(at=2)),))
    world.push(2)
    world.advance(1)
    assert world.pool.figures().links[0].state.value == "open"
    world.advance(70)
    before = world.pool.figures().links[0].sent
    world.push(100)
    world.advance(2)
    assert world.pool.figures().links[0].sent > before
    world.stop()


# --------------------------------------------------------------------------------------------------------------- credentials


def refused_world() -> ClientWorld:
    world = ClientWorld()
    world.client.use(ProviderToken(STRANGERS_KEY))
    return world


def test_a_key_that_apple_refuses_stops_the_pushes_and_says_so_once() -> None:
    world = refused_world()
    first = world.push(5, timeout=5)
    events = in_log(lambda: world.advance(1))
    assert [event["log_level"].name for event in events if event.get("app") == "shop"] == ["error"]
    assert world.metrics.of("credential_stopped") == [("shop", "InvalidProviderToken")]
    assert world.client.figures().stopped_by == "InvalidProviderToken"
    assert world.client.figures().held == 5
    assert world.push(1)[0].outcome == NotSent(Why.CREDENTIAL_STOPPED)
    world.advance(5)
    assert {type(sent.outcome) for sent in first} == {Rejected}
    assert len(world.apple.ledger) == 5
    world.stop()


def test_a_new_key_loses_no_push() -> None:
    world = refused_world()
    world.push(5)
    world.advance(1)
    world.client.use(world.token)
    world.push(5)
    world.advance(2)
    assert world.delivered() == 10
    assert world.client.figures().stopped_by == ""
    world.stop()


def test_what_comes_back_after_the_key_was_replaced_does_not_stop_the_new_one() -> None:
    world = ClientWorld((Delay(1.0),))
    world.client.use(ProviderToken(STRANGERS_KEY))
    world.push(5)
    world.advance(0.5)
    world.client.use(world.token)
    world.advance(4)
    assert world.delivered() == 5
    assert world.metrics.of("credential_stopped") == []
    world.stop()


def test_another_certificate_means_another_pool_and_loses_no_push() -> None:
    world = ClientWorld((Delay(0.5),))
    world.push(10)
    world.advance(0.1)
    old, new = world.pool, world.make_pool()
    world.push(30)
    world.client.use(world.token, new)
    stopped = old.stop()
    world.push(10)
    world.advance(8)
    assert stopped.called
    assert world.delivered() == 50
    world.pool = new
    world.stop()


def test_a_topic_that_apple_does_not_allow_is_stopped_and_the_others_go_on() -> None:
    world = ClientWorld(topics=frozenset({"com.example.app"}))
    wrong = world.push(1, topic="com.example.other")[0]
    world.advance(1)
    assert isinstance(wrong.outcome, Rejected)
    assert world.push(1, topic="com.example.other")[0].outcome == NotSent(Why.TOPIC_STOPPED)
    right = world.push(1)[0]
    world.advance(1)
    assert isinstance(right.outcome, Delivered)
    assert world.client.figures().stopped_topics == ("com.example.other",)
    world.client.use(world.token)
    again = world.push(1, topic="com.example.other")[0]
    world.advance(1)
    assert isinstance(again.outcome, Rejected)
    world.stop()


def test_new_tokens_of_one_key_do_not_come_too_often_for_apple() -> None:
    world = ClientWorld(scope=UpdateScope.ACCOUNT)
    for _ in range(20):
        world.push(5)
        world.advance(600)
    assert world.delivered() == 100
    assert 4 <= world.token.epoch <= 5
    world.stop()


# --------------------------------------------------------------------------------------------------------- the other side is down


def test_an_open_breaker_is_an_answer_at_once_that_says_when() -> None:
    world = ClientWorld(breaker=BreakerPolicy(min_calls=5, first_rest=8.0))
    world.dialer.refusing = LinkEnd("refused", permanent=True)
    world.push(30, timeout=3.0)
    world.advance(3)
    assert world.client.figures().breaker is State.OPEN
    outcome = world.push(1)[0].outcome
    assert isinstance(outcome, NotSent)
    assert outcome.why is Why.BREAKER_OPEN
    assert 0 < (outcome.retry_after or 0) <= 8.0
    world.dialer.refusing = None
    world.advance(40)
    world.push(10)
    world.advance(3)
    assert world.delivered() >= 1
    assert world.client.figures().breaker is State.CLOSED
    world.stop()


def test_what_waits_for_its_next_try_outlasts_a_short_outage() -> None:
    world = ClientWorld()
    world.dialer.refusing = LinkEnd("refused", permanent=True)
    world.push(10, timeout=30.0)
    world.advance(1)
    world.dialer.refusing = None
    world.advance(28)
    assert world.delivered() == 10
    world.stop()


def test_repeats_stay_within_their_budget() -> None:
    world = ClientWorld(
        (Reject(Reason.INTERNAL_SERVER_ERROR),), breaker=BreakerPolicy(min_calls=100_000), concurrency=ConcurrencyPolicy(start=1000)
    )
    world.push(1000, timeout=20.0)
    world.advance(20)
    assert 1000 < len(world.apple.ledger) <= 1000 + 100 + 20 + 1
    world.stop()


def test_what_was_perhaps_shown_stays_unknown_whatever_later_tries_say() -> None:
    world = ClientWorld((ResetStream(When(at=1), processed=True), Reject(Reason.BAD_DEVICE_TOKEN, When(at=2))))
    sent = world.push(1, collapse_id="score")[0]
    world.advance(9)
    assert sent.outcome == Unknown(Why.STREAM_RESET)
    world.stop()


# ---------------------------------------------------------------------------------------------------------------- what is known


def test_figures_tell_what_became_of_the_pushes() -> None:
    world = ClientWorld((Reject(Reason.UNREGISTERED, When(at=2)), Freeze(When(at=6))))
    world.push(5, timeout=3)
    world.advance(1)
    figures = world.client.figures()
    assert (figures.delivered, figures.outcomes, figures.in_flight) == (4, {("rejected", "Unregistered"): 1}, 0)
    assert figures.token_age == 1.0
    world.push(1, timeout=3)
    world.advance(1)
    assert world.client.figures().in_flight == 1
    world.advance(3)
    assert world.metrics.of("push_ended") == [("shop", "rejected", "Unregistered"), ("shop", "unknown", "no_answer")]
    world.stop()


def test_no_secret_is_in_a_repr_or_a_log_line() -> None:
    world = refused_world()
    events = in_log(lambda: (world.push(3), world.advance(2))[0])  # type: ignore[func-returns-value]
    sending = world.sent[0].sending
    assert sending is not None
    said = repr(sending) + repr(world.sent[0].push) + repr(world.client) + repr(events) + repr(world.client.figures())
    assert world.sent[0].push.device_token not in said
    assert "bearer" not in said
    assert "hello" not in said
    world.stop()


def test_the_time_until_a_push_is_sent_and_that_until_its_answer_are_told_apart() -> None:
    world = narrow(Delay(0.5))
    world.push()
    world.push()
    world.advance(3)
    (first, second) = world.metrics.times
    assert first[0] < 0.1 and 0.5 <= first[1] < 0.6
    assert 0.5 <= second[0] < 0.7 and 0.5 <= second[1] < 0.6
    world.stop()
