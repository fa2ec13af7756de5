"""Pushes of one app to one host, each with exactly one outcome by its deadline.

Theory of operation. A push asks the policies (`Pace`) whether it may go. With a ticket it goes to the pool, which brings it to a
connection and tells what became of it; without one it waits (`Detours`), in a bounded queue, or is told at once that it was not
sent. What came back is looked at by the policies again: it has ended, or it rests until its next try, with the same apns-id.

The pool does not repeat these pushes by itself, so every refusal is known to the policies, and repeats are decided in one place.

    send ──► may it go? ──yes──► pool ──► Delivered, most of the time
               │  ▲                └───► came back ──► again later │ held for another credential │ it has ended
               │  └── room, or time ──┐
               └──no──► waits ────────┘

Here is the straight way, which nearly every push goes; it is written for few calls, since their number is what a push costs.

Credentials. What Apple says about a key or a topic counts for the credential that the push was sent with: a push that comes back
after the credential was replaced goes out again with the new one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from streampush.apns.client_figures import ClientFigures, named
from streampush.apns.client_limits import ClientLimits
from streampush.apns.detours import Detours
from streampush.apns.http2 import HeaderList
from streampush.apns.loop_lag import LoopLag
from streampush.apns.outcome import Delivered, NotSent, Outcome, Rejected, Why
from streampush.apns.pace import Pace, Ticket
from streampush.apns.pool import Pool
from streampush.apns.ports import ApnsMetrics, NoMetrics
from streampush.apns.provider_token import ProviderToken
from streampush.apns.push import ApnsPush, check_push
from streampush.apns.quick_deferred import QuickDeferred
from streampush.apns.reasons import Action, treatment
from streampush.apns.request_heads import RequestHeads
from streampush.apns.retry import GiveUp, overall, read_retry_after
from streampush.apns.sending import Sending
from streampush.apns.standing import Standing

_log = Logger()

_CALLERS_FAULT = "What was to be done about a push failed"
_TRY_OVER = NotSent(Why.DEADLINE)


class ApnsClient:
    """`app`: its name, for logs and metrics. `authority`: of the requests, Apple's host name. `token`: the provider token of the
    app's key; None: the pool's connections show a certificate. `wall`: Unix seconds. `new_id`: makes apns-ids. `unique_ids`:
    whether to read what only the development environment answers.

    The pool may serve several clients, so its owner stops it; the pace is this client's own. Times are seconds of `clock`.
    """

    def __init__(
        self,
        app: str,
        authority: str,
        pool: Pool,
        pace: Pace,
        clock: IReactorTime,
        *,
        token: ProviderToken | None,
        wall: Callable[[], float],
        new_id: Callable[[], str],
        limits: ClientLimits | None = None,
        metrics: ApnsMetrics | None = None,
        unique_ids: bool = False,
    ) -> None:
        self._app = app
        self._pool = pool
        self._pace = pace
        self._clock = clock
        self._wall = wall
        self._new_id = new_id
        self._limits = limits or ClientLimits()
        self._metrics: ApnsMetrics = metrics or NoMetrics()
        self._unique_ids = unique_ids
        self._heads = RequestHeads(authority, token)
        self._standing = Standing(app, self._limits, self._metrics)
        self._detours = Detours(pace, self._standing, self._limits, clock, wall, self._submit, self._end)
        self._queues = self._detours.queues
        self._delivered = 0
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._token_look_at = -inf
        self._lag = LoopLag(clock, lambda: pace.in_flight > 0)
        self._stopping = False

    # ------------------------------------------------------------------------------------------------------------ for the caller

    def push(self, push: ApnsPush, *, deadline: float) -> Deferred[Outcome]:
        """Fires with the outcome by `deadline`. To cancel it takes the push back if it is still here.

        Raises BadPush for what Apple would reject in any case.
        """
        check_push(push)
        sending = Sending(self, push, push.apns_id or self._new_id(), deadline, None)
        result: Deferred[Outcome] = QuickDeferred(sending.cancelled)
        sending.done = result.callback
        self._set_out(sending)
        return result

    def send(self, push: ApnsPush, deadline: float, done: Callable[[Outcome], None]) -> Sending:
        """As `push`, with a call in place of the Deferred: `done` is called once, perhaps before this returns."""
        check_push(push)
        sending = Sending(self, push, push.apns_id or self._new_id(), deadline, done)
        self._set_out(sending)
        return sending

    def cancel(self, sending: Sending) -> bool:
        """Takes a push back that no connection has yet; it ends as NotSent (CANCELLED), or as a try before did. Gives whether."""
        if sending.over:
            return False
        ticket = sending.ticket
        if ticket is None:
            self._queues.remove(sending)
        elif sending.waiting:
            sending.ticket = None
            self._pool.cancel(sending)
            now = self._clock.seconds()
            self._pace.leave(ticket, sending.push.device_token, NotSent(Why.CANCELLED), sending.attempt(), now, self._wall())
        else:
            return False
        self._end(sending, overall(sending.earlier, NotSent(Why.CANCELLED)))
        self._detours.pump(self._clock.seconds())
        return True

    def use(self, token: ProviderToken | None, pool: Pool | None = None) -> None:
        """The credential is another one from now on, or the same with other rights; what was held for it goes out. `pool`: the one
        for another certificate; the old one may be stopped then, and what it gives back goes to the new one."""
        self._standing.renew()
        self._token_look_at = -inf
        if token is not self._heads.token:
            self._heads.use(token)
        if pool is not None:
            self._pool = pool
        self._detours.release(self._clock.seconds())

    def stop(self) -> None:
        """Takes nothing more; what waits ends now, what is under way by its answer or deadline, or when the pool stops."""
        self._stopping = True
        self._lag.stop()
        self._detours.stop()

    def figures(self) -> ClientFigures:
        """What there is now."""
        queues, token = self._queues, self._heads.token
        return ClientFigures(
            queued=queues.queued,
            resting=len(queues.resting),
            held=len(queues.held),
            queued_bytes=queues.size,
            in_flight=self._pace.in_flight,
            limit=self._pace.limit,
            breaker=self._pace.state,
            delivered=self._delivered,
            outcomes=dict(self._outcomes),
            token_age=None if token is None else token.age(self._clock.seconds()),
            stopped_by=""
            if self._standing.stopped_by is None
            else self._standing.stopped_by.reason or str(self._standing.stopped_by.status),
            stopped_topics=tuple(sorted(self._standing.topics)),
            clock_offset=self._standing.watch.offset,
        )

    # ------------------------------------------------------------------------------------------------------ for what is on its way

    def seconds(self) -> float:
        """See SendingOwner."""
        return self._clock.seconds()

    def delivered(self, sending: Sending, headers: HeaderList) -> None:
        """See SendingOwner."""
        ticket = sending.ticket
        if ticket is None:
            return
        carrier = sending.carrier
        now = self._clock.seconds() if carrier is None else carrier.heard_at
        unique_id = (headers.get(b"apns-unique-id") or b"").decode("ascii", "replace")[:64] if self._unique_ids else ""
        if now >= self._standing.look_at:
            self._standing.see_clock(headers, now, self._wall())
        sending.ticket = None
        sent_at = sending.sent_at
        since = sent_at + self._lag.allowance
        latency = now - since if since < now else 0.0
        if self._pace.delivered_with_others(ticket, sending.push.device_token, latency, now):
            if carrier is None:
                self._weigh()
            else:
                carrier.afterwards(self._weigh)
        self._delivered += 1
        self._metrics.push_delivered(sent_at - sending.begun_at, now - sent_at)
        done, sending.done = sending.done, None
        if done is not None:
            try:
                done(Delivered(sending.apns_id, unique_id))
            except Exception:  # noqa: BLE001 - a fault of one caller; the others' pushes go on
                _log.failure(_CALLERS_FAULT)
        if self._queues.queued:
            self._detours.pump(self._clock.seconds())

    def came_back(self, sending: Sending, outcome: Outcome, headers: HeaderList | None) -> None:
        """See SendingOwner."""
        ticket, sending.ticket = sending.ticket, None
        if ticket is None:
            return
        now, wall = self._clock.seconds(), self._wall()
        wait = 0.0
        if isinstance(outcome, Rejected):
            wait = self._learn(sending, outcome, headers, now, wall)
        elif outcome == _TRY_OVER and sending.deadline < sending.until:
            outcome = NotSent(Why.NO_ROOM)  # only this try had to end
        decision = self._pace.leave(
            ticket,
            sending.push.device_token,
            outcome,
            sending.attempt(),
            now,
            wall,
            wait=wait,
            sent_at=min(sending.sent_at + self._lag.allowance, now),
        )
        if isinstance(decision, GiveUp):
            self._end(sending, overall(sending.earlier, decision.outcome))
        else:
            earlier = sending.earlier = overall(sending.earlier, outcome)
            if self._stopping:
                self._end(sending, earlier)
            else:
                self._metrics.push_repeated(self._app, *named(outcome))
                self._detours.come_again(sending, outcome, decision, now)
        self._detours.pump(now)

    def retry_after(self, headers: HeaderList) -> float | None:
        """See SendingOwner."""
        value = headers.get(b"retry-after")
        return None if value is None else read_retry_after(value.decode("latin-1"), self._wall())

    # ----------------------------------------------------------------------------------------------------------------- its work

    def _set_out(self, sending: Sending) -> None:
        now = sending.begun_at = self._clock.seconds()
        push, standing = sending.push, self._standing
        if self._stopping:
            self._end(sending, NotSent(Why.STOPPING))
            return
        # As `Detours.try_or_wait` does, in the same order, for most pushes: nobody waits, nothing is stopped, there is time.
        expiration = push.expiration
        is_late = expiration and self._wall() >= expiration
        slow = is_late or self._queues.queued or standing.stopped_by is not None or push.topic in standing.topics
        if not slow and now < sending.until and type(ticket := self._pace.enter_first(push.device_token, now)) is Ticket:
            self._submit(sending, ticket, now)
        else:
            self._detours.try_or_wait(sending, now)

    def _submit(self, sending: Sending, ticket: Ticket, now: float) -> None:
        heads = self._heads
        if now >= self._token_look_at:
            self._token_look_at = now + self._limits.token_look
            heads.refresh(now, self._wall())
        if not self._lag.running:
            self._lag.run()
        sending.ticket = ticket
        sending.made += 1
        sending.block = heads.block(sending.push, sending.apns_id)
        sending.stamp = heads.stamp
        sending.generation = self._standing.generation
        sending.sent_at = now
        deadline = now + self._limits.answer_timeout
        sending.deadline = deadline if deadline < sending.until else sending.until
        self._pool.submit(sending, now)
        if sending.waiting:
            sending.watched = True
        else:
            sending.block = b""  # it is on its way; another try has a block of its own

    def _weigh(self) -> None:
        self._pace.weigh()
        if self._queues.queued:  # there may be more room now
            self._detours.pump(self._clock.seconds())

    def _end(self, sending: Sending, outcome: Outcome) -> None:
        kind, reason = named(outcome)
        self._outcomes[kind, reason] += 1
        self._metrics.push_ended(self._app, kind, reason)
        done, sending.done = sending.done, None
        if done is not None:
            try:
                done(outcome)
            except Exception:  # noqa: BLE001 - as above
                _log.failure(_CALLERS_FAULT)

    def _learn(self, sending: Sending, outcome: Rejected, headers: HeaderList | None, now: float, wall: float) -> float:
        """What a rejection says beyond its push; gives the seconds until there is another provider token if it asks for one."""
        action = treatment(outcome.status, outcome.reason).action
        carrier = sending.carrier
        if action is Action.NEW_PROVIDER_TOKEN:
            if headers is not None:
                self._standing.see_clock(headers, now, wall)
            wait = self._heads.expired(sending.stamp, now, wall)
            if wait:
                self._standing.refuse_token(outcome, wait, now)
            return wait
        if action is Action.REST_CONNECTION:
            self._standing.refuse_token(outcome, self._limits.connection_rest, now)
            if carrier is not None:
                carrier.rest(self._limits.connection_rest)
        elif action is Action.RETRY or action is Action.NEW_CONNECTION:
            if carrier is not None:
                carrier.drain(f"a push was answered {named(outcome)[1]}")
        elif sending.generation == self._standing.generation:
            if action is Action.STOP_CREDENTIAL:
                if headers is not None:  # a token dated wrongly is none that is valid
                    self._standing.see_clock(headers, now, wall)
                self._standing.refuse(outcome)
            elif action is Action.STOP_TOPIC:
                self._standing.refuse_topic(sending.push.topic, outcome)
        return 0.0
