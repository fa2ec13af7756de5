"""What Apple lets us know about a credential and a clock by the way it answers pushes, and what follows for those to come."""

from __future__ import annotations

from math import inf

from twisted.logger import Logger

from streampush.apns.client_figures import named
from streampush.apns.client_limits import ClientLimits
from streampush.apns.http2 import HeaderList
from streampush.apns.outcome import Rejected
from streampush.apns.ports import ApnsMetrics
from streampush.apns.provider_token import ClockWatch
from streampush.apns.reasons import treatment

_log = Logger()

TOLD_AGAIN = 3600.0
"""Seconds in which it is told once that provider tokens are refused: it may go on for hours, with each push."""

_REFUSED_TOKENS = {
    "ExpiredProviderToken": "Apple calls a provider token of {app} expired that is not; the next one goes out in {seconds} s: "
    "set the clock",
    "TooManyProviderTokenUpdates": "Apple has seen too many provider tokens of {app}, as after many starts in a row: "
    "its connection rests for {seconds} s",
}


class Standing:
    """Of one app's credential with Apple. `generation` grows with each credential: what Apple says about an earlier one is nothing
    against this one. `stopped_by`: with what Apple refused it."""

    def __init__(self, app: str, limits: ClientLimits, metrics: ApnsMetrics) -> None:
        self.generation = 0
        self.stopped_by: Rejected | None = None
        self.topics: set[str] = set()
        """Those that Apple does not allow."""
        self.watch = ClockWatch()
        self.look_at = -inf
        """When the next answer is worth a look at Apple's clock."""
        self._told_at: dict[str, float] = {}  # by the reasons of _REFUSED_TOKENS
        self._app = app
        self._limits = limits
        self._metrics = metrics

    def renew(self) -> None:
        """The credential is another one, or has other rights."""
        self.generation += 1
        self.stopped_by = None
        self.topics.clear()

    def refuse(self, outcome: Rejected) -> None:
        """Apple refuses the credential; the first time it is said to operators."""
        if self.stopped_by is not None:
            return
        self.stopped_by = outcome
        reason, known = named(outcome)[1], treatment(outcome.status, outcome.reason)
        text = "Apple refuses the credential of {app} ({status} {reason}): {meaning}. No pushes until it is replaced: {advice}"
        _log.error(text, app=self._app, status=outcome.status, reason=reason, meaning=known.meaning, advice=known.advice)
        self._metrics.credential_stopped(self._app, reason)

    def refuse_token(self, outcome: Rejected, seconds: float, now: float) -> None:
        """Apple does not take the provider token, which is nobody's decision; it gets better by itself after so many seconds, or
        when a clock is set."""
        text = _REFUSED_TOKENS.get(outcome.reason)
        if text is not None and now - self._told_at.get(outcome.reason, -inf) >= TOLD_AGAIN:
            self._told_at[outcome.reason] = now
            _log.warn(text, app=self._app, seconds=round(seconds))

    def refuse_topic(self, topic: str, outcome: Rejected) -> None:
        """Apple does not let the credential push to this topic."""
        if topic in self.topics or len(self.topics) >= self._limits.max_stopped_topics:
            return
        self.topics.add(topic)
        known = treatment(outcome.status, outcome.reason)
        text = "Apple refuses the topic {topic} of {app}: {meaning}. No pushes to it until that has changed: {advice}"
        _log.error(text, app=self._app, topic=topic, meaning=known.meaning, advice=known.advice)

    def see_clock(self, headers: HeaderList, now: float, wall: float) -> None:
        """Compares the clocks, if the answer has a date."""
        self.look_at = now + self._limits.clock_look
        date = headers.get(b"date")
        skew = None if date is None else self.watch.saw(date.decode("latin-1"), wall)
        if skew is not None:
            _log.warn("{skew}: provider tokens and expirations are wrong by as much", skew=str(skew))
            self._metrics.clock_skewed(skew.seconds)
