"""The pace of one app's pushes to one host: every policy asked in the right order, and told of what came of it.

A push enters, and leaves with its outcome:

    enter ──► Ticket ──(the caller sends it)──► leave(ticket, outcome) ──► Again | Hold | GiveUp
          ├─► Wait      nothing was taken; ask again when another push has left, and after that time at the latest
          └─► GiveUp    its time is over

What is taken and cannot be given back (a token of a rate, a repeat of the budget, the probe of a breaker) is taken last, when
nothing else is in the way. The caller keeps the queue and its bound; in a queue that is full, what is here answers nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from streampush.apns.breaker import Breaker, State
from streampush.apns.concurrency import Concurrency
from streampush.apns.lanes import Lane, Lanes
from streampush.apns.outcome import Delivered, Health, Outcome, Refused, Rejected, Why, health
from streampush.apns.rates import AppRates, RestingDevices
from streampush.apns.reasons import Action, treatment
from streampush.apns.retry import Attempt, Decision, GiveUp, Retries, RetryBudget
from streampush.quick_values import quick_value


@quick_value(frozen=True, slots=True)
class Ticket:
    """One push is under way. Each ticket leaves once."""

    permit: int
    lane: Lane
    entered_at: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now: ask again when a push has left, and in `seconds` at the latest (None: no such time).

    `why`: for the timeline, and for NotSent if the caller cannot wait.
    """

    seconds: float | None
    why: Why


_FIRST = Attempt()
"""Of a push that has time and was not tried."""


class Pace:
    """Who may go now. `app` names the app in the rates; the other arguments belong to this app and host alone, but for the
    rates."""

    __slots__ = (
        "_app",
        "_breaker",
        "_budget",
        "_common",
        "_concurrency",
        "_devices",
        "_lanes",
        "_latencies",
        "_peak",
        "_rates",
        "_retries",
        "_suspects",
        "_together_at",
        "in_flight",
    )

    def __init__(
        self,
        app: str,
        *,
        breaker: Breaker,
        concurrency: Concurrency,
        lanes: Lanes,
        devices: RestingDevices,
        rates: AppRates,
        retries: Retries,
        budget: RetryBudget,
    ) -> None:
        self._app = app
        self._breaker = breaker
        self._concurrency = concurrency
        self._lanes = lanes
        self._devices = devices
        self._rates = rates
        self._retries = retries
        self._budget = budget
        self._suspects = 0
        self._common = Ticket(0, Lane.HEALTHY, 0.0)
        self._latencies: list[float] = []  # of pushes with that ticket, which came together and are not weighed yet
        self._together_at = 0.0
        self._peak = 0  # the most that were under way at one of them
        self.in_flight = 0
        """Pushes under way, of both lanes."""

    def enter(self, device_token: str, attempt: Attempt, now: float, wall: float) -> Ticket | Wait | GiveUp:
        """Whether the push may be sent now. `attempt` counts the tries before this one."""
        over = self._retries.over(attempt, now, wall)
        if over is not None:
            return over
        rest = self._devices.wait(device_token, now)
        if rest:
            return Wait(rest, Why.DEVICE_RESTS)
        limit, lane = self._concurrency.limit, self._lanes.lane(device_token)
        is_suspect = lane is Lane.SUSPECT
        if self.in_flight >= limit or (is_suspect and self._suspects >= self._lanes.width(lane, limit)):
            return Wait(None, Why.NO_ROOM)
        breaker = self._breaker
        closed = 0.0 if breaker.state is State.CLOSED else breaker.wait(now)
        if closed:
            return Wait(closed, Why.BREAKER_OPEN)
        pause = self._rates.take(self._app, now)
        if pause:
            return Wait(pause, Why.APP_RATE)
        if attempt.charged:
            late = self._retries.ready(attempt, now, wall)
            if late is not None:
                return late if isinstance(late, GiveUp) else Wait(late.delay, Why.RETRY_BUDGET)
        self.in_flight += 1
        self._suspects += is_suspect
        return Ticket(breaker.permit(now), lane, now)

    def enter_first(self, device_token: str, now: float) -> Ticket | Wait:
        """As `enter`, for a push that was not tried yet and whose time is not over. Its ticket may be that of others too, and does
        not tell when it entered: `sent_at` is to be given with it when it leaves."""
        permit = self._breaker.common_permit
        if (
            device_token in self._lanes.suspects
            or device_token in self._devices.rests
            or self.in_flight >= self._concurrency.limit
            or permit < 0
            or (self._app in self._rates.limited and self._rates.take(self._app, now))
        ):
            entered = self.enter(device_token, _FIRST, now, 0.0)
            return entered if not isinstance(entered, GiveUp) else Wait(None, Why.NO_ROOM)
        self.in_flight += 1
        if self._common.permit != permit:
            self.weigh()
            self._common = Ticket(permit, Lane.HEALTHY, now)
        return self._common

    def leave(
        self,
        ticket: Ticket,
        device_token: str,
        outcome: Outcome,
        attempt: Attempt,
        now: float,
        wall: float,
        *,
        wait: float = 0.0,
        sent_at: float | None = None,
    ) -> Decision:
        """The push of this ticket has ended; what is to be done with it. `attempt` counts this try.

        `wait`: seconds until there is a new provider token, from `ProviderToken.expired`. `sent_at`: when it got its stream, if it
        had to wait for a connection behind its ticket: that time says nothing about the other side.
        """
        self.weigh()  # what came before it counts before it
        if sent_at is None:
            sent_at = ticket.entered_at
        if isinstance(outcome, Delivered):
            self.delivered(ticket, device_token, sent_at, now)
            return GiveUp(outcome)
        in_flight = self.in_flight
        self.in_flight = in_flight - 1
        if ticket.lane is Lane.SUSPECT:
            self._suspects -= 1
        self._lanes.note(device_token, outcome)
        self._judge(ticket, outcome, in_flight, now - sent_at, now)
        if isinstance(outcome, Rejected) and treatment(outcome.status, outcome.reason).action is Action.REST_DEVICE:
            wait = max(wait, self._devices.too_many(device_token, now, outcome.retry_after))
        return self._retries.plan(outcome, attempt, now, wall, wait=wait)

    def delivered(self, ticket: Ticket, device_token: str, sent_at: float, now: float) -> None:
        """As `leave`, for a push that Apple took: most of them do, and nothing is to be decided about them."""
        self.delivered_with_others(ticket, device_token, now - sent_at, now)
        self.weigh()

    def delivered_with_others(self, ticket: Ticket, device_token: str, latency: float, now: float) -> bool:
        """As `delivered`, for one of many answers that came together, at `now`. What they say together is looked at in `weigh`,
        which is to be called when all are here. Gives whether this is the first of them."""
        in_flight = self.in_flight
        self.in_flight = in_flight - 1
        if device_token in self._lanes.suspects:
            self._lanes.clear(device_token)
        if device_token in self._devices.rests:
            self._devices.delivered(device_token)
        if ticket is not self._common:
            self._alone(ticket, latency, in_flight, now)
            return False
        if in_flight > self._peak:
            self._peak = in_flight
        latencies = self._latencies
        latencies.append(latency)
        if len(latencies) > 1:
            return False
        self._together_at = now
        return True

    def weigh(self) -> None:
        """All that came together is here. Without effect if there is nothing."""
        latencies = self._latencies
        if not latencies:
            return
        peak, self._peak, self._latencies = self._peak, 0, []
        self._breaker.all_good(self._common.permit, latencies, self._together_at)
        self._concurrency.all_answered(latencies, peak, self._together_at)
        self._budget.successes += len(latencies)

    def lane(self, device_token: str) -> Lane:
        """Where a push to this device waits its turn."""
        return self._lanes.lane(device_token)

    def has_room(self, lane: Lane) -> bool:
        """Whether one more of this lane may be under way; other things may be in its way."""
        limit = self._concurrency.limit
        return self.in_flight < limit and (lane is Lane.HEALTHY or self._suspects < self._lanes.width(lane, limit))

    @property
    def limit(self) -> int:
        """Pushes that may be under way."""
        return self._concurrency.limit

    @property
    def state(self) -> State:
        """Of the breaker."""
        return self._breaker.state

    def _alone(self, ticket: Ticket, latency: float, in_flight: int, now: float) -> None:
        """A push was taken whose ticket is its own: a probe, a suspect, or from before the breaker was open."""
        self.weigh()
        if ticket.lane is Lane.SUSPECT:
            self._suspects -= 1
        self._breaker.good(ticket.permit, latency, now)
        self._concurrency.answered(latency, in_flight, now)
        self._budget.successes += 1

    def _judge(self, ticket: Ticket, outcome: Outcome, in_flight: int, latency: float, now: float) -> None:
        sign = health(outcome)
        if sign is Health.GOOD:
            self._breaker.good(ticket.permit, latency, now)
            self._concurrency.answered(latency, in_flight, now)
        elif sign is Health.BAD:
            self._breaker.bad(ticket.permit, now)
        else:
            self._breaker.silent(ticket.permit)
            if isinstance(outcome, Refused) and outcome.why is Why.REFUSED_STREAM:
                self._concurrency.refused(now)
