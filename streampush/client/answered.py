"""What the application has answered for good, by the ids of the messages: how a repeat is known where offsets prove nothing.

In another log than before, behind a failover of the server's store above all, delivery may begin in front of what was taken, and
offsets there may mean other messages. An id never does. docs/protocol.md section 11.6.
"""

from __future__ import annotations

from collections import OrderedDict

from streampush.protocol.terms import Outcome

MAX_ANSWERED = 10_000
"""Ids of a channel that are remembered while its position stands still, and ids of the logs before that may still come again: some
2 MB. Of what is above, the oldest is forgotten, and given again if it comes again."""

RECENT = 256
"""Ids that are remembered in front of the position, for a log that was put back to a state before it: a default window, which is
what a server may have sent and not yet stored as acknowledged."""


class Answered:
    """Of one channel. Bounded; no IO, no clock."""

    __slots__ = ("_before", "_here")

    def __init__(self) -> None:
        self._here: OrderedDict[str, tuple[int, Outcome]] = OrderedDict()  # message id to its offset in this log, and the answer
        self._before: OrderedDict[str, Outcome] = OrderedDict()  # answered in logs before, and not seen in this one

    def __len__(self) -> int:
        return len(self._here) + len(self._before)

    def outcome(self, message_id: str) -> Outcome | None:
        """The answer that the application gave; None if it gave none, or too long ago."""
        here = self._here.get(message_id)
        return here[1] if here is not None else self._before.get(message_id)

    def note(self, message_id: str, offset: int, outcome: Outcome) -> None:
        """The application has answered for good. `offset` 0: the message is no longer in the log."""
        self._before.pop(message_id, None)
        if offset:
            self._here[message_id] = offset, outcome
            _keep(self._here, MAX_ANSWERED)
        else:
            self._before[message_id] = outcome
            _keep(self._before, MAX_ANSWERED)

    def processed(self, message_id: str, offset: int) -> int:
        """The application is done with what it had answered with DELIVERED. Gives the offset of the message in this log, 0 if it is
        not known to be there; `offset` is what the message says."""
        if message_id in self._before:
            self._before[message_id] = Outcome.PROCESSED
            return 0
        if message_id in self._here:
            offset, _ = self._here[message_id]
            self._here[message_id] = offset, Outcome.PROCESSED
        return offset

    def other_log(self, processed: int) -> None:
        """Offsets mean something else from now on. `processed`: up to there the application was done with what was DELIVERED."""
        for message_id, (offset, outcome) in self._here.items():
            done = outcome is Outcome.DELIVERED and offset <= processed
            self._before[message_id] = Outcome.PROCESSED if done else outcome
        self._here.clear()
        _keep(self._before, MAX_ANSWERED)

    def settle(self) -> None:
        """The position has come behind everything that was answered in this log."""
        _keep(self._here, RECENT)

    def caught_up(self) -> None:
        """All that this log has was delivered: what was answered before can come again only from yet another one."""
        _keep(self._before, RECENT)

    def forget(self) -> None:
        """The application wants all of it again."""
        self._here.clear()
        self._before.clear()


def _keep(answers: OrderedDict[str, tuple[int, Outcome]] | OrderedDict[str, Outcome], at_most: int) -> None:
    """Forgets the oldest."""
    while len(answers) > at_most:
        answers.popitem(last=False)
