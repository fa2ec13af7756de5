"""Whether the promises were kept: a journal is judged by invariants I1 to I4. Knows nothing of how the journal was made.

I1 What a publisher was told is stored was given to every device that follows the channel, or is a dead letter of that device and
   its receipt says so. Excused is what has expired, was recalled, or was superseded by its collapse key. A recall that a publisher
   was told is stored was told to every device. What a device was given, its receipt calls delivered, unless it may no longer be
   read. Nothing is refused for another reason than that the server cannot store just now.
I2 No application was given a message twice, but one that it had asked for again, and one behind the position that it remembered
   when it was started; those it must expect. A text that was published again with its key is one message.
I3 Each application got each channel in order of offset, but for what it had asked for again; a message never came first behind
   its recall; a publisher's messages lie in the order in which it was told of them.
I4 Where a device was told `recovered`, it had everything up to there, and the message there is the one that it was told. An
   offset is the same message for everybody. A loss was only named where something could expire.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_SHOWN = 20
"""Violations of one invariant that are told in full."""

Record = dict[str, Any]


@dataclass(slots=True)
class Verdict:
    """`violations` is empty if every promise was kept."""

    acknowledged: int = 0
    delivered: int = 0
    repeats: int = 0  # that the application had to expect
    violations: list[str] = field(default_factory=list)
    _shown: dict[str, int] = field(default_factory=dict)

    def violate(self, invariant: str, text: str) -> None:
        """Notes a broken promise."""
        count = self._shown[invariant] = self._shown.get(invariant, 0) + 1
        if count <= MAX_SHOWN:
            self.violations.append(f"{invariant}: {text}")
        elif count == MAX_SHOWN + 1:
            self.violations.append(f"{invariant}: and more")


@dataclass(slots=True)
class _Message:
    """What is known of a message from its publisher."""

    channel: str
    offset: int
    may_go: bool
    collapse_key: str


@dataclass(slots=True)
class _Follower:
    """One device on one channel: what its application got, in the present life and in all."""

    remembered: int = 0  # the position with which this life began
    last: int = 0  # highest offset of this life
    life: set[int] = field(default_factory=set)
    wanted: set[int] = field(default_factory=set)  # asked for again
    taken: dict[str, int] = field(default_factory=dict)  # message id to the record's number
    proven: list[tuple[int, int]] = field(default_factory=list)  # offset, number of the record that said `recovered`
    losses: list[str] = field(default_factory=list)


class Judge:
    """Hears the records in their order. `follows`: for each device the channels that it follows from their beginning."""

    def __init__(self, follows: Mapping[str, Iterable[str]]) -> None:
        self._verdict = Verdict()
        self._followers = {device: {channel: _Follower() for channel in channels} for device, channels in follows.items()}
        self._messages: dict[str, _Message] = {}  # that a publisher was told of
        self._ids: dict[str, dict[int, str]] = defaultdict(dict)  # channel -> offset -> message id
        self._texts: dict[str, str] = {}  # text -> message id
        self._newest: dict[tuple[str, str], int] = {}  # publisher, channel -> offset
        self._collapsed: dict[tuple[str, str], int] = {}  # channel, collapse key -> the newest offset
        self._recalling: set[str] = set()
        self._recalled: dict[str, str] = {}  # message id -> channel
        self._notices: dict[str, set[str]] = {device: set() for device in follows}
        self._dead: set[tuple[str, str]] = set()
        self._receipts: dict[tuple[str, str], list[str]] = {}
        self._number = 0

    def hear(self, record: Record) -> None:
        """One more record."""
        self._number += 1
        hear = getattr(self, f"_hear_{record['kind']}", None)
        if hear is not None:
            hear(record)

    def missing(self) -> list[tuple[str, str]]:
        """Device and message id of what must still come."""
        found = []
        for device, channels in self._followers.items():
            for message_id, message in self._messages.items():
                follower = channels.get(message.channel)
                if follower is None or message_id in follower.taken or self._excused(message_id, message):
                    continue
                if (device, message_id) not in self._dead:
                    found.append((device, message_id))
            for message_id, channel in self._recalled.items():
                if channel in channels and message_id not in self._notices[device]:
                    found.append((device, f"recall of {message_id}"))
        return found

    def verdict(self) -> Verdict:
        """To be asked once, when everything is told."""
        for device, message_id in self.missing():
            self._verdict.violate("I1", f"{device} never got {self._where(message_id)}")
        self._judge_receipts()
        for device, channels in self._followers.items():
            for channel, follower in channels.items():
                self._judge_proofs(device, channel, follower)
        return self._verdict

    # ----------------------------------------------------------------------------------------------------------- publishers

    def _hear_ack(self, record: Record) -> None:
        channel, offset, message_id = record["channel"], record["offset"], record["message_id"]
        self._verdict.acknowledged += 1
        self._same_text(record)
        key = record.get("collapse_key", "")
        self._messages[message_id] = _Message(channel, offset, bool(record.get("may_go")), key)
        if not offset:
            return
        self._same_offset(record)
        line = record["publisher"], channel
        if offset <= self._newest.get(line, 0):
            self._verdict.violate("I3", f"{line[0]}'s {self._where(message_id)} lies in front of what it had published before")
        self._newest[line] = offset
        if key:
            self._collapsed[channel, key] = max(offset, self._collapsed.get((channel, key), 0))

    def _hear_wrong(self, record: Record) -> None:
        self._verdict.violate("I1", f"the server has refused what it must not: {record['text']}")

    def _hear_recalling(self, record: Record) -> None:
        self._recalling.add(record["message_id"])

    def _hear_recalled(self, record: Record) -> None:
        self._recalled[record["message_id"]] = record["channel"]

    # -------------------------------------------------------------------------------------------------------------- devices

    def _hear_began(self, record: Record) -> None:
        for channel, follower in self._followers[record["device"]].items():
            follower.remembered = follower.last = record["positions"].get(channel, 0)
            follower.life.clear()

    def _hear_got(self, record: Record) -> None:
        device, channel, offset, message_id = record["device"], record["channel"], record["offset"], record["message_id"]
        self._same_text(record)
        self._same_offset(record)
        follower = self._followers[device].get(channel)
        if follower is None:
            self._verdict.violate("I2", f"{device} got {self._where(message_id)}, a channel that it does not follow")
            return
        asked = offset in follower.wanted
        if not asked:
            self._judge_order(device, follower, record)
        if message_id in self._notices[device] and message_id not in follower.taken and not asked:
            self._verdict.violate("I3", f"{device} got {self._where(message_id)} behind its recall")
        follower.last = max(follower.last, offset)
        follower.life.add(offset)
        if record.get("later"):
            follower.wanted.add(offset)
            return
        follower.wanted.discard(offset)
        if message_id in follower.taken:
            self._verdict.repeats += 1
        else:
            self._verdict.delivered += 1
            follower.taken[message_id] = self._number

    def _judge_order(self, device: str, follower: _Follower, record: Record) -> None:
        where, offset = self._where(record["message_id"]), record["offset"]
        if offset in follower.life:
            self._verdict.violate("I2", f"{device} got {where} twice")
        elif offset <= follower.remembered:
            self._verdict.violate("I2", f"{device} got {where}, and remembered {follower.remembered} when it was started")
        elif offset < follower.last:
            self._verdict.violate("I3", f"{device} got {where} behind {follower.last}")

    def _hear_notice(self, record: Record) -> None:
        self._notices[record["device"]].add(record["message_id"])

    def _hear_recovered(self, record: Record) -> None:
        follower = self._followers[record["device"]].get(record["channel"])
        if follower is not None:
            follower.proven.append((record["offset"], self._number))
        if record["offset"] and record["message_id"]:
            self._same_offset(record)

    def _hear_lost(self, record: Record) -> None:
        self._followers[record["device"]][record["channel"]].losses.append(record["reason"])

    # ---------------------------------------------------------------------------------------------------------- at the end

    def _hear_dead(self, record: Record) -> None:
        self._dead.add((record["device"], record["message_id"]))

    def _hear_receipt(self, record: Record) -> None:
        self._receipts[record["device"], record["message_id"]] = record["milestones"]

    def _judge_receipts(self) -> None:
        for (device, message_id), milestones in self._receipts.items():
            message = self._messages.get(message_id)
            follower = None if message is None else self._followers[device].get(message.channel)
            if message is None or follower is None or self._excused(message_id, message):
                continue  # of what may no longer be read, only what the server had stored before is told
            due = {"delivered", "rejected", "dead_lettered"} if message_id in follower.taken else {"dead_lettered"}
            if (message_id in follower.taken or (device, message_id) in self._dead) and not due & set(milestones):
                self._verdict.violate("I1", f"the receipt of {self._where(message_id)} on {device} says {milestones}")

    def _judge_proofs(self, device: str, channel: str, follower: _Follower) -> None:
        """What the device was told of its position, against what it had at that moment."""
        log = sorted(self._ids[channel].items())
        at = 0
        for offset, number in follower.proven:
            while at < len(log) and log[at][0] <= offset:
                message_id = log[at][1]
                message = self._messages.get(message_id)
                had = follower.taken.get(message_id, number) < number
                if message and not had and not self._excused(message_id, message) and (device, message_id) not in self._dead:
                    where = self._where(message_id)
                    self._verdict.violate("I4", f"{device} was told that it recovered to {offset}, and had not got {where}")
                at += 1
        may_go = any(message.may_go and message.channel == channel for message in self._messages.values())
        for reason in follower.losses:
            if reason != "EXPIRED" or not may_go:  # "at most" so many: some of them it may have
                self._verdict.violate("I4", f"{device} was told of a loss on {channel}: {reason}")

    # --------------------------------------------------------------------------------------------------------------- inside

    def _excused(self, message_id: str, message: _Message) -> bool:
        """Whether it need not arrive."""
        newest = self._collapsed.get((message.channel, message.collapse_key), 0) if message.collapse_key else 0
        return message.may_go or message_id in self._recalling or newest > message.offset

    def _same_text(self, record: Record) -> None:
        known = self._texts.setdefault(record["text"], record["message_id"])
        if known != record["message_id"]:
            self._verdict.violate("I2", f"{record['text']} is {known} and {record['message_id']}")

    def _same_offset(self, record: Record) -> None:
        channel, offset, message_id = record["channel"], record["offset"], record["message_id"]
        known = self._ids[channel].setdefault(offset, message_id)
        if known != message_id:
            self._verdict.violate("I4", f"offset {offset} of {channel} is {known} and {message_id}")

    def _where(self, message_id: str) -> str:
        message = self._messages.get(message_id)
        return f"{message_id} ({message.channel} {message.offset})" if message else message_id


def judge(records: Iterable[Record], follows: Mapping[str, Iterable[str]]) -> Verdict:
    """Judges a whole journal."""
    judge = Judge(follows)
    for record in records:
        judge.hear(record)
    return judge.verdict()
