"""When a device token may be forgotten because Apple says that it is dead.

Two things must not happen. A token that the app registered again after Apple had seen it die is alive (Apple's own advice:
compare the timestamp). And a wrong environment or bundle id in the configuration makes Apple call *every* token bad: forgetting
them all cannot be taken back, so the reasons that a wrong configuration gives too are believed only while others of the app are
delivered. A token that is spared costs a push that is rejected, each time.
"""

from __future__ import annotations

from collections import deque

from streampush.apns.outcome import Delivered, Outcome, Rejected
from streampush.apns.reasons import Action, treatment

DEFAULT_WINDOW = 200
"""Answers of an app that are remembered. Some more than a bad batch of tokens has in a row by chance."""

DEFAULT_MAX_DOUBTFUL = 0.5
"""Share of doubtful answers among them from which on the configuration is suspected. Below it, most tokens are evidently right."""

MIN_ANSWERS = 20
"""Answers before a share says anything. With fewer, one push that was delivered is enough to show that the configuration is
right."""

DOUBTFUL = frozenset({"BadDeviceToken", "DeviceTokenNotForTopic"})
"""Reasons that a wrong environment, or a wrong topic, gives for tokens that are right."""


def is_registered_since(outcome: Rejected, *, registered_at_ms: int, sent_at_ms: int) -> bool:
    """Whether the token was registered after what Apple says of it, and so is alive. Unix milliseconds.

    Without a timestamp Apple spoke of the moment of the push. An equal time counts as registered since: a live token is the
    greater loss.
    """
    said_at_ms = sent_at_ms if outcome.timestamp_ms is None else outcome.timestamp_ms
    return registered_at_ms >= said_at_ms


class DeadTokens:
    """The verdict for the tokens of one app. Told of every answer, in any order."""

    def __init__(self, window: int = DEFAULT_WINDOW, max_doubtful: float = DEFAULT_MAX_DOUBTFUL) -> None:
        self._answers: deque[bool] = deque(maxlen=window)
        self._doubtful = 0
        self._max_doubtful = max_doubtful
        self.spared = 0
        """Tokens that were not dropped because the configuration is suspected."""

    @property
    def suspects_configuration(self) -> bool:
        """Whether so many tokens are called bad that environment or topic is probably wrong. An operator must look."""
        return len(self._answers) >= MIN_ANSWERS and self._doubtful > self._max_doubtful * len(self._answers)

    def note(self, outcome: Outcome) -> None:
        """An answer of Apple's to a push of this app; other outcomes say nothing."""
        if isinstance(outcome, Delivered):
            doubtful = False
        elif isinstance(outcome, Rejected) and treatment(outcome.status, outcome.reason).action is Action.DROP_TOKEN:
            doubtful = outcome.reason in DOUBTFUL
        else:
            return
        answers = self._answers
        if len(answers) == answers.maxlen:
            self._doubtful -= answers[0]
        answers.append(doubtful)
        self._doubtful += doubtful

    def may_drop(self, outcome: Outcome, *, registered_at_ms: int, sent_at_ms: int) -> bool:
        """Whether the token of this push is to be forgotten. Call `note` first."""
        if not isinstance(outcome, Rejected) or treatment(outcome.status, outcome.reason).action is not Action.DROP_TOKEN:
            return False
        if is_registered_since(outcome, registered_at_ms=registered_at_ms, sent_at_ms=sent_at_ms):
            return False
        if outcome.reason in DOUBTFUL and (self.suspects_configuration or self._doubtful == len(self._answers)):
            self.spared += 1
            return False
        return True
