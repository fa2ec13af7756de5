"""Where a client's pushes go that cannot go straight: they wait for room, rest until their next try, or are held for another
credential.

Room is looked for whenever a push leaves. For all else there is one timer, for whatever is due first.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IReactorTime

from streampush.apns.alarm import Alarm
from streampush.apns.client_limits import ClientLimits
from streampush.apns.client_queues import ClientQueues
from streampush.apns.lanes import Lane
from streampush.apns.outcome import NotSent, Outcome, Why
from streampush.apns.pace import Pace, Ticket, Wait
from streampush.apns.retry import Again, GiveUp, Hold, overall
from streampush.apns.sending import Sending
from streampush.apns.standing import Standing

_FOR_ROOM = frozenset({Why.NO_ROOM, Why.APP_RATE})
"""For what a push waits in its lane; the others concern itself alone, or say that waiting is of no use."""

_LEAST_WAIT = 0.001
"""Seconds. What a policy asks for may be too small to change a clock's number, and would be asked again for ever."""


class Detours:
    """Of one client. `submit` sends a push that has its ticket, `end` tells its outcome; the push is here no more then.

    `wall`: Unix seconds. `queues`: all that are here.
    """

    __slots__ = (
        "_alarm",
        "_end",
        "_limits",
        "_pace",
        "_pumping",
        "_rate_until",
        "_standing",
        "_stopped",
        "_submit",
        "_wall",
        "queues",
    )

    def __init__(
        self,
        pace: Pace,
        standing: Standing,
        limits: ClientLimits,
        clock: IReactorTime,
        wall: Callable[[], float],
        submit: Callable[[Sending, Ticket, float], None],
        end: Callable[[Sending, Outcome], None],
    ) -> None:
        self._pace = pace
        self._standing = standing
        self._limits = limits
        self._wall = wall
        self._submit = submit
        self._end = end
        self.queues = ClientQueues(limits)
        self._rate_until = -inf  # until then the app has had its share
        self._pumping = False
        self._stopped = False
        self._alarm = Alarm(clock, self._due)

    # ----------------------------------------------------------------------------------------------------------- for the client

    def try_or_wait(self, sending: Sending, now: float) -> None:
        """Sends it if it may go; unless others wait in its lane already."""
        queues = self.queues
        if (not queues.queued or not self._is_behind(sending, now)) and self._try(sending, now):
            return
        if queues.has_room(sending):
            self._wait(self._pace.lane(sending.push.device_token), sending)
        else:
            self._end(sending, overall(sending.earlier, NotSent(Why.QUEUE_FULL)))

    def come_again(self, sending: Sending, outcome: Outcome, decision: Again | Hold, now: float) -> None:
        """It came back, and that need not be its end. `earlier` tells how, if it is."""
        replaced = sending.generation != self._standing.generation
        if replaced and (isinstance(decision, Hold) or outcome == NotSent(Why.STOPPING)):
            self.try_or_wait(sending, now)
        elif isinstance(decision, Hold):
            self._hold(sending)
        else:
            sending.charged = decision.charged
            self._rest(sending, now + max(decision.delay, _LEAST_WAIT))

    def release(self, now: float) -> None:
        """The credential is another one: what was held for it goes out."""
        while (sending := self.queues.pop(self.queues.held)) is not None:
            self.try_or_wait(sending, now)
        self.pump(now)

    def pump(self, now: float) -> None:
        """Gives those who wait in the lanes what room there is. Suspects first: they can never take more than their share."""
        queues = self.queues
        if self._pumping or not queues.queued:
            return
        self._pumping = True
        try:
            if queues.suspect:
                self._pump_lane(Lane.SUSPECT, now)
            if queues.healthy:
                self._pump_lane(Lane.HEALTHY, now)
        finally:
            self._pumping = False

    def stop(self) -> None:
        """All that is here ends now."""
        self._stopped = True
        self._alarm.stop()
        for sending in self.queues.drain():
            self._end(sending, overall(sending.earlier, NotSent(Why.STOPPING)))

    # ----------------------------------------------------------------------------------------------------------------- its work

    def _is_behind(self, sending: Sending, now: float) -> bool:
        if now < self._rate_until:
            return True
        is_suspect = self.queues.suspect and self._pace.lane(sending.push.device_token) is Lane.SUSPECT
        return bool(self.queues.suspect if is_suspect else self.queues.healthy)

    def _try(self, sending: Sending, now: float) -> bool:
        """Sends it, ends it, or lets it rest; False: it has to wait in its lane."""
        push = sending.push
        standing = self._standing
        if standing.stopped_by is not None or push.topic in standing.topics:
            self._stand_still(sending)
            return True
        answer: Ticket | Wait | GiveUp
        is_late = now >= sending.until or (push.expiration and self._wall() >= push.expiration)
        if is_late or sending.made:
            answer = self._pace.enter(push.device_token, sending.attempt(), now, self._wall())
        else:  # nearly always
            answer = self._pace.enter_first(push.device_token, now)
        if isinstance(answer, Ticket):
            self._submit(sending, answer, now)
        elif isinstance(answer, GiveUp):
            self._end(sending, overall(sending.earlier, answer.outcome))
        elif answer.why in _FOR_ROOM:
            if answer.seconds is not None:
                self._rate_until = now + max(answer.seconds, _LEAST_WAIT)
                self._arm(self._rate_until)
            return False
        else:
            self._put_off(sending, answer, now)
        return True

    def _stand_still(self, sending: Sending) -> None:
        """Its credential or topic is stopped. What was tried before may wait for another credential, the others need not."""
        if self._standing.stopped_by is None:
            self._end(sending, overall(sending.earlier, NotSent(Why.TOPIC_STOPPED)))
        elif sending.made:
            self._hold(sending)
        else:
            self._end(sending, NotSent(Why.CREDENTIAL_STOPPED))

    def _put_off(self, sending: Sending, wait: Wait, now: float) -> None:
        """It may not go for some time, and that is its own matter."""
        seconds = max(wait.seconds or 0.0, _LEAST_WAIT)
        again_at = now + seconds
        if wait.why is Why.BREAKER_OPEN:
            again_at = now + min(seconds, self._limits.breaker_look)
        unwanted = wait.why is Why.BREAKER_OPEN and not sending.made
        if unwanted or now + seconds >= sending.until or not self.queues.has_room(sending):
            self._end(sending, overall(sending.earlier, NotSent(wait.why, seconds)))
        else:
            self._rest(sending, again_at)

    def _wait(self, lane: Lane, sending: Sending) -> None:
        until = sending.until - min(self._limits.answer_spare, (sending.until - sending.begun_at) / 4)
        self.queues.add(self.queues.lanes[lane], sending, until)
        self._arm(until)

    def _rest(self, sending: Sending, until: float) -> None:
        if self.queues.has_room(sending):
            self.queues.add(self.queues.resting, sending, until)
            self._arm(until)
        else:
            self._end(sending, overall(sending.earlier, NotSent(Why.QUEUE_FULL)))

    def _hold(self, sending: Sending) -> None:
        if self.queues.has_room(sending):
            self.queues.add(self.queues.held, sending, sending.until)
            self._arm(sending.until)
        else:
            self._end(sending, sending.earlier or NotSent(Why.CREDENTIAL_STOPPED))

    def _pump_lane(self, lane: Lane, now: float) -> None:
        queues = self.queues
        place = queues.lanes[lane]
        while now >= self._rate_until and (self._pace.has_room(lane) or self._standing.stopped_by is not None):
            sending = queues.pop(place)
            if sending is None:
                return
            actual = self._pace.lane(sending.push.device_token)
            if actual is not lane and not self._pace.has_room(actual) and self._standing.stopped_by is None:
                self._wait(actual, sending)
            elif not self._try(sending, now):
                self._wait(lane, sending)
                return

    # --------------------------------------------------------------------------------------------------------------------- time

    def _arm(self, at: float) -> None:
        """Makes sure that the timer comes no later."""
        if not self._stopped:
            self._alarm.set(at)

    def _due(self, now: float) -> None:
        queues = self.queues
        for place in queues.lanes.values():
            while (sending := queues.pop_due(place, now)) is not None:
                self._end(sending, overall(sending.earlier, NotSent(Why.DEADLINE)))
        while (sending := queues.pop_due(queues.held, now)) is not None:
            self._end(sending, sending.earlier or NotSent(Why.CREDENTIAL_STOPPED))
        while (sending := queues.pop_due(queues.resting, now)) is not None:
            self.try_or_wait(sending, now)
        self.pump(now)
        if queues.queued and now < self._rate_until:
            self._arm(self._rate_until)
        next_due = queues.next_due()
        if next_due < inf:
            self._arm(next_due)
