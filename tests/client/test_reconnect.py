from __future__ import annotations

from random import Random

import pytest

from streampush.client.events import StopReason
from streampush.client.reconnect import STABLE_AFTER, Attempt, Loss, Reconnect, Stop
from streampush.protocol.codes import Advice, Code
from streampush.protocol.messages import ReconnectPolicy

POLICY = ReconnectPolicy(first_jitter_ms=5000, backoff_initial_ms=1000, backoff_max_ms=60_000, degraded_after=5)
UNREACHABLE = Loss()
BROKEN = Loss(lived=100.0)
SHORT_LIVED = Loss(lived=STABLE_AFTER - 0.1)


def machine(seed: int = 1, addresses: int = 1, policy: ReconnectPolicy | None = POLICY) -> Reconnect:
    reconnect = Reconnect(addresses, Random(seed))
    reconnect.begin()
    if policy is not None:
        reconnect.welcomed(policy)
    return reconnect


def attempt(decision: object) -> Attempt:
    assert isinstance(decision, Attempt)
    return decision


def delays(reconnect: Reconnect, losses: list[Loss]) -> list[float]:
    return [attempt(reconnect.lost(loss)).delay for loss in losses]


def spread(losses: list[Loss], policy: ReconnectPolicy | None = POLICY) -> list[tuple[float, float]]:
    """For each loss of the sequence the least and the greatest delay over many seeds."""
    rows = [delays(machine(seed, policy=policy), losses) for seed in range(400)]
    return [(min(column), max(column)) for column in zip(*rows, strict=True)]


def test_the_first_connection_is_made_at_once() -> None:
    assert Reconnect(1, Random(1)).begin() == Attempt(0.0, 0)


def test_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="address"):
        Reconnect(0, Random(1))


def test_a_client_that_never_connected_tries_three_times_half_a_second_apart() -> None:
    reconnect = machine(policy=None)
    assert delays(reconnect, [UNREACHABLE] * 3) == [0.5, 0.5, 0.5]
    assert attempt(reconnect.lost(UNREACHABLE)).delay != 0.5


def test_after_the_three_quick_tries_the_backoff_begins_at_one_second() -> None:
    ranges = spread([UNREACHABLE] * 7, policy=None)[3:]
    for (low, high), span in zip(ranges, [1, 2, 4, 8], strict=True):
        assert low < span * 0.05
        assert span * 0.95 < high <= span


def test_the_first_try_after_a_lost_connection_is_at_a_random_point_of_the_announced_jitter() -> None:
    [(low, high)] = spread([BROKEN])
    assert low < 0.25
    assert 4.75 < high <= 5


def test_the_backoff_doubles_with_full_jitter() -> None:
    ranges = spread([BROKEN] + [UNREACHABLE] * 4)[1:]
    for (low, high), span in zip(ranges, [1, 2, 4, 8], strict=True):
        assert low < span * 0.05
        assert span * 0.95 < high <= span


def test_the_fifth_failed_try_turns_to_short_connections() -> None:
    reconnect = machine()
    modes = [attempt(reconnect.lost(loss)).degraded for loss in [BROKEN] + [UNREACHABLE] * 6]
    assert modes == [False] * 5 + [True] * 2


def test_the_announced_degraded_after_is_obeyed() -> None:
    reconnect = machine(policy=ReconnectPolicy(degraded_after=1))
    modes = [attempt(reconnect.lost(loss)).degraded for loss in [BROKEN, UNREACHABLE]]
    assert modes == [False, True]


def test_short_connections_come_at_doubling_intervals_from_the_longest_backoff_on() -> None:
    ranges = spread([BROKEN] + [UNREACHABLE] * 11)[5:]
    for (low, high), span in zip(ranges, [60, 120, 240, 480, 960, 960, 960], strict=True):
        assert span / 2 <= low < span * 0.55
        assert span * 0.95 < high <= span


def degraded(seed: int = 1) -> Reconnect:
    reconnect = machine(seed)
    delays(reconnect, [BROKEN] + [UNREACHABLE] * 5)
    assert reconnect.degraded
    return reconnect


def test_after_a_short_connection_that_succeeded_comes_another_one() -> None:
    again = degraded().short_closed()
    assert again.degraded
    assert 60 <= again.delay <= 120


def test_two_short_connections_in_a_row_end_the_trouble() -> None:
    reconnect = degraded()
    reconnect.short_closed()
    normal = reconnect.short_closed()
    assert not normal.degraded
    assert normal.delay <= 5
    assert reconnect.tries == 0


def test_a_failure_between_two_short_connections_begins_the_count_anew() -> None:
    reconnect = degraded()
    reconnect.short_closed()
    assert attempt(reconnect.lost(UNREACHABLE)).degraded
    assert reconnect.short_closed().degraded


def test_a_client_that_never_connected_gets_to_short_connections_too() -> None:
    reconnect = machine(policy=None)
    modes = [attempt(reconnect.lost(UNREACHABLE)).degraded for _ in range(8)]
    assert modes == [False] * 7 + [True]
    reconnect.welcomed(POLICY)
    assert attempt(reconnect.lost(SHORT_LIVED)).degraded


def test_a_short_connection_that_takes_long_and_breaks_is_no_success() -> None:
    reconnect = machine()
    delays(reconnect, [BROKEN] + [UNREACHABLE] * 5)
    assert attempt(reconnect.lost(BROKEN)).degraded


def test_a_stable_connection_ends_the_trouble() -> None:
    reconnect = machine()
    delays(reconnect, [BROKEN] + [UNREACHABLE] * 3)
    assert reconnect.tries == 3
    delays(reconnect, [BROKEN])
    assert reconnect.tries == 0


def test_a_server_that_greets_and_drops_is_not_hammered() -> None:
    reconnect = machine()
    modes = [attempt(reconnect.lost(SHORT_LIVED)).degraded for _ in range(6)]
    assert modes == [False] * 5 + [True]


def test_a_backoff_of_nothing_is_replaced_by_the_default() -> None:
    ranges = spread([BROKEN, UNREACHABLE], policy=ReconnectPolicy(0, 0, 0, 0))
    assert 4.75 < ranges[0][1] <= 5
    assert 0.95 < ranges[1][1] <= 1


def test_a_backoff_runs_for_years_without_overflow() -> None:
    reconnect = machine(policy=ReconnectPolicy(degraded_after=1_000_000))
    assert max(delays(reconnect, [UNREACHABLE] * 3000)) <= 60


@pytest.mark.parametrize("advice", [Advice.RECONNECT, Advice.RECONNECT_ELSEWHERE, Advice.RETRY, Advice.SLOW_DOWN])
@pytest.mark.parametrize("code", [Code.OVERLOADED, 1999])
def test_the_advised_time_overrides_the_backoff(advice: Advice, code: int) -> None:
    loss = Loss(code, advice, retry_after_ms=20_000, jitter_ms=1000, by_peer=True, lived=1)
    [(low, high)] = spread([loss])
    assert 20 <= low < 20.05
    assert 20.95 < high <= 21


def test_slow_down_waits_at_least_one_step_of_the_backoff() -> None:
    reconnect = machine()
    delays(reconnect, [BROKEN] + [UNREACHABLE] * 2)
    assert delays(reconnect, [Loss(2008, Advice.SLOW_DOWN, retry_after_ms=1, by_peer=True, lived=1)]) == [4.0]


def test_without_advice_its_times_do_not_count() -> None:
    loss = Loss(1999, Advice.UNSPECIFIED, retry_after_ms=20_000, by_peer=True, lived=100)
    [(_, high)] = spread([loss])
    assert high <= 5


@pytest.mark.parametrize(
    ("advice", "retry_after_ms", "least"),
    [(Advice.RETRY, 1_000, 1.0), (Advice.SLOW_DOWN, 1_000, 8.0), (Advice.RECONNECT, 499, 0.499)],
)
def test_before_welcome_the_longer_wait_counts(advice: Advice, retry_after_ms: int, least: float) -> None:
    refused = Loss(Code.OVERLOADED, advice, retry_after_ms=retry_after_ms, by_peer=True)
    low, high = spread([BROKEN] + [UNREACHABLE] * 3 + [refused])[-1]
    assert low == least
    assert 7.6 < high <= 8


# ------------------------------------------------------------------------------------------------------------- appointments


def appointed(retry_after_ms: int, *, lived: float | None = None, since_told: float = 0.0, jitter_ms: int = 0) -> Loss:
    advice = Advice.RECONNECT_ELSEWHERE
    return Loss(
        Code.DRAINING, advice, retry_after_ms=retry_after_ms, jitter_ms=jitter_ms, by_peer=True, lived=lived, since_told=since_told
    )


@pytest.mark.parametrize("lived", [None, 1.0, 100.0])
def test_a_moment_that_the_server_names_is_kept_exactly(lived: float | None) -> None:
    reconnect = machine()
    delays(reconnect, [BROKEN] + [UNREACHABLE] * 3)
    attempt = reconnect.lost(appointed(1_234, lived=lived))
    assert isinstance(attempt, Attempt)
    assert (attempt.delay, attempt.appointed) == (1.234, True)


def test_it_counts_from_when_it_was_named_and_not_from_the_end_of_the_connection() -> None:
    attempt = machine().lost(appointed(3_000, lived=100, since_told=2.5))
    assert isinstance(attempt, Attempt)
    assert attempt.delay == 0.5
    attempt = machine().lost(appointed(3_000, lived=100, since_told=9.0))
    assert isinstance(attempt, Attempt)
    assert attempt.delay == 0.0


def test_an_appointment_is_no_failed_try() -> None:
    reconnect = machine()
    for _ in range(50):
        attempt = reconnect.lost(appointed(1_000))
        assert isinstance(attempt, Attempt)
        assert (attempt.delay, attempt.degraded) == (1.0, False)
    assert reconnect.tries == 0


def test_who_finds_nobody_at_its_moment_goes_on_with_the_backoff() -> None:
    ranges = spread([appointed(20_000, lived=100), UNREACHABLE, UNREACHABLE])
    assert [round(high) for _, high in ranges] == [20, 1, 2]


def test_nobody_is_put_off_for_longer_than_an_hour() -> None:
    attempt = machine().lost(appointed(2**32 - 1))
    assert isinstance(attempt, Attempt)
    assert attempt.delay == 3_600


def test_a_restarted_client_begins_at_its_moment_and_its_address() -> None:
    reconnect = Reconnect(3, Random(1))
    assert reconnect.begin(12.5, 2) == Attempt(12.5, 2, appointed=True)
    assert Reconnect(3, Random(1)).begin(-1.0, 2) == Attempt(0.0, 0)
    assert Reconnect(3, Random(1)).begin(4_000.0, 2) == Attempt(0.0, 0)


def test_advice_without_a_time_uses_the_announced_jitter() -> None:
    [(low, high)] = spread([Loss(Code.MAXIMUM_AGE, Advice.RECONNECT, by_peer=True, lived=100)])
    assert low < 0.25
    assert 4.75 < high <= 5


@pytest.mark.parametrize(
    ("advice", "reason"),
    [
        (Advice.DO_NOT_RECONNECT, StopReason.TOLD),
        (Advice.REAUTHENTICATE, StopReason.REAUTHENTICATE),
        (Advice.RENEW_CERTIFICATE, StopReason.RENEW_CERTIFICATE),
        (Advice.UPGRADE, StopReason.UPGRADE),
    ],
)
@pytest.mark.parametrize("code", [Code.OVERLOADED, 1999])
def test_advice_that_stops_stops_whatever_the_code(advice: Advice, reason: StopReason, code: int) -> None:
    loss = Loss(code, advice, "told", retry_after_ms=1000, by_peer=True)
    assert machine().lost(loss) == Stop(reason, code, "told")


@pytest.mark.parametrize("advice", list(Advice))
def test_a_replaced_connection_stops_with_any_advice(advice: Advice) -> None:
    decision = machine().lost(Loss(Code.REPLACED, advice, by_peer=True))
    assert isinstance(decision, Stop)
    assert decision.reason is StopReason.REPLACED


def test_refused_credentials_stop() -> None:
    assert machine().lost(Loss(detail="expired", credentials=True)) == Stop(StopReason.CREDENTIALS, 0, "expired")


@pytest.mark.parametrize("advice", list(Advice))
def test_our_own_verdict_about_the_server_never_stops(advice: Advice) -> None:
    assert isinstance(machine().lost(Loss(Code.SERIALIZATION_ERROR, advice, lived=50)), Attempt)


@pytest.mark.parametrize(
    ("loss", "address"),
    [
        (BROKEN, 0),
        (UNREACHABLE, 1),
        (Loss(Code.DRAINING, Advice.RECONNECT_ELSEWHERE, by_peer=True, lived=5), 1),
        (Loss(Code.OVERLOADED, Advice.RECONNECT_ELSEWHERE, by_peer=True), 1),
        (Loss(Code.ACCEPT_RATE_LIMIT, Advice.RECONNECT, by_peer=True), 0),
    ],
)
def test_the_next_address_is_taken_when_told_so_or_when_nobody_answers(loss: Loss, address: int) -> None:
    assert attempt(machine(addresses=3).lost(loss)).address == address


def test_the_addresses_go_round() -> None:
    reconnect = machine(addresses=2)
    assert [attempt(reconnect.lost(UNREACHABLE)).address for _ in range(4)] == [1, 0, 1, 0]
