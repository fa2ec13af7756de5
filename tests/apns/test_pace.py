from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.breaker import Breaker, BreakerPolicy, State
from streampush.apns.concurrency import Concurrency, ConcurrencyPolicy
from streampush.apns.lanes import Lane, Lanes
from streampush.apns.outcome import Delivered, NotSent, Outcome, Refused, Rejected, Unknown, Why
from streampush.apns.pace import Pace, Ticket, Wait
from streampush.apns.rates import FIRST_REST, AppRate, AppRates, RestingDevices
from streampush.apns.retry import Again, Attempt, GiveUp, Hold, Retries, RetryBudget, RetryPolicy, overall

WALL = 1_790_000_000.0
TOKEN, OTHER = "aa" * 32, "bb" * 32
SENT = Attempt(tries=1)


@dataclass
class Parts:
    """A pace and what it is made of."""

    seed: int = 1
    ceiling: int = 1000
    start: int = 16
    policy: RetryPolicy = field(default_factory=lambda: RetryPolicy(server_error_wait=0.0))
    rates: dict[str, AppRate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.breaker = Breaker(0.0, BreakerPolicy(min_calls=5))
        self.concurrency = Concurrency(0.0, ConcurrencyPolicy(start=self.start), ceiling=self.ceiling)
        self.lanes = Lanes()
        self.devices = RestingDevices()
        self.budget = RetryBudget(0.0, saved=10.0)
        self.pace = Pace(
            "shop",
            breaker=self.breaker,
            concurrency=self.concurrency,
            lanes=self.lanes,
            devices=self.devices,
            rates=AppRates(self.rates, 0.0),
            retries=Retries(self.policy, self.budget, Random(self.seed)),
            budget=self.budget,
        )

    def enter(self, token: str = TOKEN, attempt: Attempt | None = None, now: float = 0.0) -> Ticket | Wait | GiveUp:
        return self.pace.enter(token, attempt or Attempt(), now, WALL + now)

    def ticket(self, token: str = TOKEN, now: float = 0.0) -> Ticket:
        entered = self.enter(token, now=now)
        assert isinstance(entered, Ticket)
        return entered

    def through(self, outcome: Outcome, token: str = TOKEN, now: float = 0.0) -> object:
        return self.pace.leave(self.ticket(token, now), token, outcome, SENT, now, WALL + now)


def test_a_push_enters_and_leaves() -> None:
    parts = Parts()
    ticket = parts.ticket()
    assert parts.pace.in_flight == 1
    assert parts.pace.leave(ticket, TOKEN, Delivered("id"), SENT, 0.1, WALL) == GiveUp(Delivered("id"))
    assert parts.pace.in_flight == 0


def _together(parts: Parts, tickets: list[Ticket | Wait], latency: float, now: float) -> list[bool]:
    assert all(type(ticket) is Ticket for ticket in tickets)
    return [parts.pace.delivered_with_others(ticket, TOKEN, latency, now) for ticket in tickets if isinstance(ticket, Ticket)]


def test_answers_that_came_together_leave_at_once_and_are_weighed_behind_the_last() -> None:
    parts = Parts(start=4)
    tickets = [parts.pace.enter_first(TOKEN, 0.0) for _ in range(4)]
    assert _together(parts, tickets, 0.02, 0.1) == [True, False, False, False]
    assert parts.pace.in_flight == 0
    assert parts.pace.limit == 4
    parts.pace.weigh()
    assert parts.pace.limit == 8
    assert parts.budget.successes == 4
    parts.pace.weigh()
    assert parts.budget.successes == 4


def test_a_bad_answer_counts_behind_the_good_ones_that_came_with_it() -> None:
    parts = Parts()
    good, bad = ([parts.pace.enter_first(TOKEN, 0.0) for _ in range(number)] for number in (6, 5))
    _together(parts, good, 0.02, 0.1)
    for ticket in bad:
        assert isinstance(ticket, Ticket)
        parts.pace.leave(ticket, TOKEN, Unknown(Why.NO_ANSWER), SENT, 0.1, WALL)
    assert parts.pace.state is State.CLOSED


def test_slow_answers_that_came_together_open_the_breaker() -> None:
    parts = Parts()
    _together(parts, [parts.pace.enter_first(TOKEN, 0.0) for _ in range(6)], 5.0, 5.0)
    assert parts.pace.state is State.CLOSED
    parts.pace.weigh()
    assert parts.pace.state is State.OPEN


def test_an_answer_from_before_the_breaker_was_open_says_nothing_behind_it_also_among_others() -> None:
    parts = Parts()
    early = parts.pace.enter_first(TOKEN, 0.0)
    for _ in range(5):
        parts.through(Unknown(Why.NO_ANSWER))
    assert parts.pace.state is State.OPEN
    probe = parts.ticket(now=1.5)
    parts.pace.leave(probe, TOKEN, Delivered(""), SENT, 1.5, WALL)
    fresh = parts.pace.enter_first(TOKEN, 1.6)
    assert _together(parts, [fresh, early], 0.02, 1.7) == [True, False]
    parts.pace.weigh()
    assert (parts.pace.state, parts.pace.in_flight) == (State.CLOSED, 0)


def test_a_first_try_enters_by_the_same_rules() -> None:
    parts = Parts(ceiling=1)
    ticket = parts.pace.enter_first(TOKEN, 0.0)
    assert isinstance(ticket, Ticket)
    assert parts.pace.enter_first(TOKEN, 0.0) == parts.enter() == Wait(None, Why.NO_ROOM)
    parts.pace.delivered(ticket, TOKEN, 0.0, 0.0)
    for _ in range(4):
        parts.through(Unknown(Why.NO_ANSWER))
    assert parts.pace.enter_first(TOKEN, 0.5) == parts.enter(now=0.5) == Wait(0.5, Why.BREAKER_OPEN)
    probe = parts.pace.enter_first(TOKEN, 1.0)
    assert isinstance(probe, Ticket)
    assert probe != ticket
    parts.pace.delivered(probe, TOKEN, 1.0, 1.1)
    assert isinstance(parts.pace.enter_first(TOKEN, 1.2), Ticket)


def test_no_more_enter_than_may_be_under_way() -> None:
    parts = Parts(ceiling=2)
    first = parts.ticket()
    parts.ticket()
    assert parts.enter() == Wait(None, Why.NO_ROOM)
    parts.pace.leave(first, TOKEN, Delivered(""), SENT, 0.1, WALL)
    assert isinstance(parts.enter(), Ticket)


def test_suspects_have_a_narrow_lane_and_the_healthy_pass_them() -> None:
    parts = Parts()
    parts.through(Rejected(410, "Unregistered", 1))
    suspect = parts.ticket()
    assert suspect.lane is Lane.SUSPECT
    assert parts.enter() == Wait(None, Why.NO_ROOM)
    assert parts.ticket(OTHER).lane is Lane.HEALTHY
    parts.pace.leave(suspect, TOKEN, Rejected(410, "Unregistered", 1), SENT, 0.1, WALL)
    assert isinstance(parts.enter(), Ticket)


def test_a_device_that_gets_too_many_rests_with_all_its_pushes() -> None:
    parts = Parts()
    decision = parts.through(Rejected(429, "TooManyRequests"))
    assert isinstance(decision, Again)
    assert decision.delay >= FIRST_REST
    assert parts.enter() == Wait(FIRST_REST, Why.DEVICE_RESTS)
    assert isinstance(parts.enter(OTHER), Ticket)


def test_an_app_above_its_rate_waits() -> None:
    parts = Parts(rates={"shop": AppRate(10.0, 1.0)})
    parts.ticket()
    assert parts.enter() == Wait(0.1, Why.APP_RATE)


def test_an_open_breaker_lets_nothing_enter_and_takes_nothing() -> None:
    parts = Parts(rates={"shop": AppRate(1.0, 6.0)})
    for _ in range(5):
        parts.through(Unknown(Why.NO_ANSWER))
    assert parts.breaker.state is State.OPEN
    waits = [parts.enter(now=0.5) for _ in range(100)]
    assert waits == [Wait(0.5, Why.BREAKER_OPEN)] * 100
    assert isinstance(parts.enter(now=1.0), Ticket)
    assert parts.enter(now=1.0) == Wait(15.0, Why.BREAKER_OPEN)


def test_a_good_probe_opens_the_way_again() -> None:
    parts = Parts()
    for _ in range(5):
        parts.through(Rejected(503, "ServiceUnavailable"))
    parts.through(Rejected(400, "BadPriority"), now=1.0)
    assert parts.breaker.state is State.CLOSED


def test_a_probe_that_was_refused_says_nothing_and_may_be_repeated() -> None:
    parts = Parts()
    for _ in range(5):
        parts.through(Unknown(Why.CONNECTION_LOST))
    parts.through(Refused(Why.GONE_AWAY), now=1.0)
    assert isinstance(parts.enter(now=1.0), Ticket)


def test_a_refused_stream_halves_what_may_be_under_way_and_a_goaway_does_not() -> None:
    parts = Parts()
    parts.through(Refused(Why.GONE_AWAY))
    assert parts.concurrency.limit == 16
    parts.through(Refused(Why.REFUSED_STREAM))
    assert parts.concurrency.limit == 8


def test_a_repeat_waits_for_the_budget_and_a_first_try_does_not() -> None:
    parts = Parts()
    charged = Attempt(tries=1, charged=True)
    entered = [parts.enter(attempt=charged) for _ in range(11)]
    assert all(isinstance(each, Ticket) for each in entered[:10])
    assert isinstance(entered[10], Wait)
    assert entered[10].why is Why.RETRY_BUDGET
    assert isinstance(parts.enter(), Ticket)


def test_what_apple_takes_pays_for_repeats() -> None:
    parts = Parts()
    charged = Attempt(tries=1, charged=True)
    for _ in range(10):
        parts.enter(attempt=charged)
    for _ in range(11):  # eleven tenths, since ten of them are a little less than one
        assert not isinstance(parts.enter(attempt=charged), Ticket)
        parts.through(Delivered(""))
    assert isinstance(parts.enter(attempt=charged), Ticket)


def test_a_push_that_was_taken_makes_the_next_429_a_first_one() -> None:
    parts = Parts()
    parts.through(Rejected(429, "TooManyRequests"))
    parts.through(Delivered(""), now=FIRST_REST)
    parts.through(Rejected(429, "TooManyRequests"), now=FIRST_REST + 1)
    assert parts.enter(now=FIRST_REST + 1) == Wait(FIRST_REST, Why.DEVICE_RESTS)


def test_more_may_be_under_way_when_answers_come_quickly() -> None:
    parts = Parts()
    tickets = [parts.ticket() for _ in range(16)]
    for ticket in tickets:
        parts.pace.leave(ticket, TOKEN, Delivered(""), SENT, 0.03, WALL)
    assert parts.concurrency.limit == 32


@pytest.mark.parametrize("attempt", [Attempt(deadline=0.0), Attempt(expiration=int(WALL))])
def test_what_is_over_never_enters(attempt: Attempt) -> None:
    parts = Parts()
    assert isinstance(parts.enter(attempt=attempt), GiveUp)
    assert parts.pace.in_flight == 0


def test_the_wait_for_a_provider_token_is_handed_on() -> None:
    parts = Parts()
    decision = parts.pace.leave(parts.ticket(), TOKEN, Rejected(403, "ExpiredProviderToken"), SENT, 0.1, WALL, wait=700.0)
    assert isinstance(decision, Again)
    assert decision.delay == 700.0


# A sender with a queue, an Apple that misbehaves, and time that is a number.


@dataclass
class Push:
    number: int
    token: str
    deadline: float
    collapsible: bool
    tries: int = 0
    charged: bool = False
    earlier: Outcome | None = None
    ended: Outcome | None = None
    ended_at: float = 0.0

    def attempt(self) -> Attempt:
        return Attempt(self.tries, None, self.deadline, self.collapsible, self.charged)


class World:
    """Sends pushes through a pace until all have ended. `fate` of a try: (seconds, outcome, whether Apple processed it)."""

    def __init__(self, parts: Parts, fate: Callable[[Push, float], tuple[float, Outcome, bool]]) -> None:
        self.parts = parts
        self.fate = fate
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.waiting: list[Push] = []
        self.processed: Counter[int] = Counter()
        self.repeats = 0
        self.successes = 0
        self._order = count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self._order), what))

    def run(self) -> None:
        steps = 0
        while self.events:
            self.now, _, what = heapq.heappop(self.events)
            what()
            steps += 1
            assert steps < 100_000, "a push is asked for without end"

    def offer(self, push: Push) -> None:
        if push.ended is not None:
            return
        entered = self.parts.pace.enter(push.token, push.attempt(), self.now, WALL + self.now)
        if isinstance(entered, GiveUp):
            self.end(push, entered.outcome)
        elif isinstance(entered, Wait):
            self.waiting.append(push)
            latest = push.deadline if entered.seconds is None else min(push.deadline, self.now + entered.seconds)
            self.at(latest, lambda: self.again(push))
        else:
            self.send(push, entered)

    def again(self, push: Push) -> None:
        if push in self.waiting:
            self.waiting.remove(push)
            self.offer(push)

    def send(self, push: Push, ticket: Ticket) -> None:
        assert self.parts.pace.in_flight <= self.parts.ceiling
        assert self.now < push.deadline
        self.repeats += push.charged
        push.tries += 1
        seconds, outcome, is_processed = self.fate(push, self.now)
        if self.now + seconds >= push.deadline:
            seconds, outcome = push.deadline - self.now, Unknown(Why.NO_ANSWER)
        self.processed[push.number] += is_processed
        self.at(self.now + seconds, lambda: self.leave(push, ticket, outcome))

    def leave(self, push: Push, ticket: Ticket, outcome: Outcome) -> None:
        self.successes += isinstance(outcome, Delivered)
        decision = self.parts.pace.leave(ticket, push.token, outcome, push.attempt(), self.now, WALL + self.now)
        push.earlier = overall(push.earlier, outcome)
        if isinstance(decision, GiveUp):
            self.end(push, decision.outcome)
        elif isinstance(decision, Hold):
            self.end(push, outcome)
        else:
            push.charged = decision.charged
            self.at(self.now + decision.delay, lambda: self.offer(push))
        for other in self.waiting[:3]:
            self.again(other)

    def end(self, push: Push, outcome: Outcome) -> None:
        assert push.ended is None
        push.ended = overall(push.earlier, outcome)
        push.ended_at = self.now


FATES: list[tuple[Outcome, bool]] = [
    (Delivered(""), True),
    (Rejected(410, "Unregistered", 1), False),
    (Rejected(500, "InternalServerError"), False),
    (Rejected(503, "Shutdown"), False),
    (Rejected(429, "TooManyRequests", retry_after=2.0), False),
    (Rejected(403, "ExpiredProviderToken"), False),
    (Refused(Why.REFUSED_STREAM), False),
    (Refused(Why.GONE_AWAY), False),
    (NotSent(Why.NOT_WRITTEN), False),
    (NotSent(Why.NO_CONNECTION), False),
    (Unknown(Why.CONNECTION_LOST), True),
    (Unknown(Why.STREAM_RESET), False),
]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.lists(st.integers(0, 20), min_size=len(FATES), max_size=len(FATES)), st.integers(1, 40))
def test_every_push_ends_once_in_time_and_is_shown_twice_only_where_that_is_allowed(
    seed: int, weights: list[int], ceiling: int
) -> None:
    random = Random(seed)
    world = World(
        Parts(seed, ceiling),
        lambda push, now: (random.uniform(0.0, 1.5), *random.choices(FATES, [weights[0] + 1, *weights[1:]])[0]),
    )
    pushes = [Push(n, f"{n % 40:02}", random.uniform(0.5, 60.0), random.random() < 0.5) for n in range(80)]
    for push in pushes:
        world.at(0.0, lambda push=push: world.offer(push))  # type: ignore[misc]
    world.run()
    assert world.parts.pace.in_flight == 0
    assert not world.waiting
    for push in pushes:
        assert push.ended is not None
        assert push.ended_at <= push.deadline + 1e-9
        shown = world.processed[push.number]
        assert shown <= 1 or push.collapsible
        if isinstance(push.ended, Delivered):
            assert shown
        elif not isinstance(push.ended, Unknown):
            assert not shown
    assert world.repeats <= 10 + 0.1 * world.successes + world.now + 1


def test_every_tenth_refused_all_are_delivered() -> None:
    number = count(1)

    def fate(push: Push, now: float) -> tuple[float, Outcome, bool]:
        return (0.02, Refused(Why.REFUSED_STREAM), False) if next(number) % 10 == 0 else (0.02, Delivered(""), True)

    world = World(Parts(), fate)
    pushes = [Push(n, f"{n:03}", 30.0, False) for n in range(200)]
    for push in pushes:
        world.at(0.0, lambda push=push: world.offer(push))  # type: ignore[misc]
    world.run()
    assert all(push.ended == Delivered("") for push in pushes)
    assert set(world.processed.values()) == {1}
    assert max(push.ended_at for push in pushes) < 5.0


def test_a_goaway_over_a_thousand_streams_is_made_good_within_half_a_second() -> None:
    def fate(push: Push, now: float) -> tuple[float, Outcome, bool]:
        return (0.02, Delivered(""), True) if push.tries > 1 else (0.01, Refused(Why.GONE_AWAY), False)

    world = World(Parts(start=1000), fate)
    pushes = [Push(n, f"{n:04}", 30.0, False) for n in range(1000)]
    for push in pushes:
        world.at(0.0, lambda push=push: world.offer(push))  # type: ignore[misc]
    world.run()
    assert all(push.ended == Delivered("") for push in pushes)
    assert max(push.ended_at for push in pushes) < 0.5


def test_an_outage_is_survived_without_a_storm_and_ends_soon_after() -> None:
    begins, ends = 1.0, 41.0
    tries: Counter[int] = Counter()

    def fate(push: Push, now: float) -> tuple[float, Outcome, bool]:
        tries[int(now)] += 1
        return (0.02, Rejected(503, "ServiceUnavailable"), False) if begins <= now < ends else (0.02, Delivered(""), True)

    world = World(Parts(), fate)
    pushes = [Push(n, f"{n:04}", 3600.0, False) for n in range(500)]
    for push in pushes:
        world.at(push.number * 0.02, lambda push=push: world.offer(push))  # type: ignore[misc]
    world.run()
    assert all(push.ended == Delivered("") for push in pushes)
    assert sum(tries[second] for second in range(2, 41)) < 40
    assert max(push.ended_at for push in pushes) < ends + 70.0
