"""What really happened: every publication that became durable, and what publishers were told. It asks the disk and no server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from streampush.push.values import FALLBACK, PUSH, Accepted, Appended, Draft, Publication, PushOrder, Undeliverable
from tests.simulation.store import Disk
from tests.simulation.world import World


@dataclass(slots=True)
class Entry:
    """A publication in a log. `write`: the number of the disk's write that brought it. `dead`: devices that gave it up."""

    channel: str
    epoch: str
    offset: int
    message_id: str
    payload: bytes = field(repr=False)
    expires_at_ms: int
    write: int
    alert: bool = False
    recalls: str = ""
    collapse_key: str = ""
    recalled: bool = False
    superseded: bool = False
    dead: set[str] = field(default_factory=set)
    given_up: dict[str, object] = field(default_factory=dict, repr=False)  # by device: the process that gave it up


View: TypeAlias = dict[tuple[str, str], dict[int, Entry]]
"""What the logs hold, or held, by channel and epoch. A disaster begins a new view; until then one only grows."""


@dataclass(slots=True)
class Scheduled:
    """A message that waits for its time, or has gone out, or was dropped (then `gone` is the write that did it)."""

    draft: Draft
    write: int
    gone: int = 0


@dataclass(slots=True, eq=False)
class Intent:
    """Something that a publisher wants, by the payload that names it. `message_id`, `entry`: what an acknowledgement has promised.

    `keyed`: it has an idempotency key, and may be stored only once.
    """

    channel: str
    payload: bytes = field(repr=False)
    keyed: bool
    message_id: str = ""
    entry: Entry | None = None


class Truth:
    """`view` is the present one. `disasters` counts losses of what was durable: restored backups, ended processes without disk.

    `latest_ms`: the latest that a server's clock has shown; what expires by then may be gone.
    """

    def __init__(self, world: World) -> None:
        self.view: View = {}
        self.disasters = 0
        self.intents: dict[bytes, Intent] = {}
        self.scheduled: dict[str, Scheduled] = {}
        self.recalled: set[str] = set()  # ids of messages that a publisher was told are taken back
        self.undone_recalls: set[str] = set()  # ids of messages that were recalled in a course of events that was undone
        self.latest_ms = 0
        self._world = world
        self._disk: Disk | None = None
        self._places: dict[str, Entry] = {}  # by message id
        self._alerts: set[str] = set()  # ids of messages that were accepted with one
        self._keyed: dict[bytes, tuple[str, int]] = {}  # what was answered under an idempotency key: message id and write

    def watch(self, disk: Disk) -> None:
        """The disk whose writes `observe` hears of."""
        self._disk = disk

    def notice(self, time_ms: int) -> None:
        """A server's clock shows this."""
        self.latest_ms = max(self.latest_ms, time_ms)

    # ------------------------------------------------------------------------------------------------------------- the disk

    def observe(self, name: str, args: tuple[Any, ...], options: dict[str, Any], result: Any) -> None:
        """See store.Observer."""
        if name == "append":
            if args[0].fallback:
                self._alerts.add(args[0].message_id)
            self._accepted(args[0], result)
        elif name == "record":
            undeliverable: Sequence[Undeliverable] = args[2] if len(args) > 2 else options.get("undeliverable", ())
            for letter in undeliverable:
                self._given_up(letter)
        elif name == "recall" and result is None:
            self._dropped(args[0])
        for appended in _appended(result):
            self._appended(appended, early=name == "fire_due" and args[0])

    def _accepted(self, draft: Draft, accepted: Accepted) -> None:
        keyed = draft.idempotency is not None
        seen = self._world.seen
        seen["duplicate publish"] += accepted.duplicate
        seen["overtaken version"] += accepted.superseded
        seen["scheduled"] += accepted.deliver_at_ms > 0
        if accepted.duplicate:
            if not keyed or self._keyed.get(draft.payload, ("", 0))[0] != accepted.message_id:
                self._world.broken("I2", f"{draft.message_id} is called a repeat of {accepted.message_id}, and is none")
            return
        if keyed:
            if draft.payload in self._keyed:
                self._world.broken("I2", f"{draft.payload[:8]!r} is stored as {self._keyed[draft.payload][0]} and again")
            self._keyed[draft.payload] = accepted.message_id, self._write
        if accepted.deliver_at_ms:
            self.scheduled[accepted.message_id] = Scheduled(draft, self._write)

    @property
    def _write(self) -> int:
        assert self._disk is not None
        return self._disk.writes

    def _given_up(self, letter: Undeliverable) -> None:
        entry = self.view.get((letter.channel, letter.epoch), {}).get(letter.offset)
        if entry is not None:
            entry.dead.add(letter.device_id)
            self._world.seen["dead letter"] += 1
            self._world.trace("dead letter:", letter.device_id, letter.channel, letter.offset, letter.reason)

    def gave_up(self, letter: Undeliverable, process: object) -> None:
        """A server process goes on without this one; the disk may not have the dead letter yet."""
        entry = self.view.get((letter.channel, letter.epoch), {}).get(letter.offset)
        if entry is not None:
            entry.given_up[letter.device_id] = process

    def _dropped(self, message_id: str) -> None:
        scheduled = self.scheduled.get(message_id)
        if scheduled is not None and not scheduled.gone:
            scheduled.gone = self._write

    def _appended(self, appended: Appended, *, early: int) -> None:
        publication = appended.publication
        channel, epoch, offset = publication.channel, appended.epoch, publication.offset
        log = self.view.setdefault((channel, epoch), {})
        if offset != len(log) + 1:
            self._world.broken("store", f"{channel} goes on with offset {offset} behind {len(log)}")
        entry = log[offset] = self._entry(publication, epoch)
        self._places[entry.message_id] = entry
        self._check_work(entry)
        self._dropped(entry.message_id)
        scheduled = self.scheduled.get(entry.message_id)
        if scheduled is not None and scheduled.draft.deliver_at_ms > self.latest_ms:
            self._world.broken("schedule", f"{entry} goes out {scheduled.draft.deliver_at_ms - self.latest_ms} ms early ({early})")
        self._world.seen["recall notice"] += bool(entry.recalls)
        self._world.seen["scheduled went out"] += scheduled is not None
        for other in log.values():
            if other is not entry:
                other.superseded = other.superseded or bool(entry.collapse_key and other.collapse_key == entry.collapse_key)
                other.recalled = other.recalled or other.message_id == entry.recalls
        if self._world.tracing:
            self._world.trace("durable:", channel, offset, publication.message_id, publication.payload[:12], publication.recalls)

    def _check_work(self, entry: Entry) -> None:
        """I7: a message with an alert is in the log together with its work, and one without has none."""
        assert self._disk is not None
        if self._disk.has_work(FALLBACK, entry.message_id) is not entry.alert:
            self._world.broken("I7", f"{entry} {'has' if entry.alert else 'has no'} alert, and its work is not so")

    def pushed(self, order: PushOrder) -> None:
        """A push of a message to a device goes out."""
        entry = self._places.get(order.message_id)
        if entry is None or not entry.alert or entry.channel != order.channel:
            self._world.broken("I7", f"{order} is pushed, and in the logs is {entry}")
        works = (FALLBACK, order.message_id), (PUSH, f"{order.message_id}/{order.device_id}")
        if self._disk is None or not any(self._disk.has_work(kind, key) for kind, key in works):
            self._world.broken("I7", f"{order} is pushed, and its work is not on the disk: a crash would lose its result")
        self._world.seen["pushed"] += 1

    def withdrawn(self) -> None:
        """A push was taken back before it was written."""
        self._world.seen["push withdrawn"] += 1

    def _entry(self, publication: Publication, epoch: str) -> Entry:
        return Entry(
            publication.channel,
            epoch,
            publication.offset,
            publication.message_id,
            publication.payload,
            publication.expires_at_ms,
            self._write,
            publication.message_id in self._alerts,
            publication.recalls,
            publication.collapse_key,
        )

    def wiped(self) -> None:
        """The disk is empty."""
        self.disasters += 1
        self.view = {}
        self.scheduled.clear()
        self._keyed.clear()
        self._places.clear()

    def restored(self, writes: int) -> None:
        """The disk is as it was after so many writes."""
        self.disasters += 1
        for scheduled in self.scheduled.values():
            scheduled.gone = scheduled.gone if scheduled.gone <= writes else 0
        self.scheduled = {key: scheduled for key, scheduled in self.scheduled.items() if scheduled.write <= writes}
        old, self.view = self.view, {}
        self.undone_recalls.update(entry.message_id for log in old.values() for entry in log.values() if entry.recalled)
        for key, log in old.items():
            self.view[key] = {offset: self._again(entry) for offset, entry in log.items() if entry.write <= writes}
        self._places = {entry.message_id: entry for log in self.view.values() for entry in log.values()}
        self._keyed = {payload: answer for payload, answer in self._keyed.items() if answer[1] <= writes}
        for log in self.view.values():
            for entry in log.values():
                self._undo(entry, log)

    def _again(self, entry: Entry) -> Entry:
        """The entry as it was; what became of it later is undone."""
        copy = self._entry_of(entry)
        copy.dead = set(entry.dead)  # a letter that was undone is written again, or the message delivered
        return copy

    def _entry_of(self, entry: Entry) -> Entry:
        return Entry(
            entry.channel,
            entry.epoch,
            entry.offset,
            entry.message_id,
            entry.payload,
            entry.expires_at_ms,
            entry.write,
            entry.alert,
            entry.recalls,
            entry.collapse_key,
        )

    def _undo(self, entry: Entry, log: dict[int, Entry]) -> None:
        later = [other for other in log.values() if other.offset > entry.offset]
        entry.superseded = any(entry.collapse_key and other.collapse_key == entry.collapse_key for other in later)
        entry.recalled = any(other.recalls == entry.message_id for other in later)

    # -------------------------------------------------------------------------------------------------------- publishers

    def intends(self, channel: str, payload: bytes, *, keyed: bool) -> Intent:
        """A publisher begins to publish."""
        intent = self.intents[payload] = Intent(channel, payload, keyed)
        return intent

    def acknowledged(self, intent: Intent, view: View, answer: Any) -> None:
        """The publisher was told that it is stored. `view`: of the process that said so; `answer`: Published or PublishOk."""
        if answer.superseded:
            return
        intent.message_id = answer.message_id
        if answer.deliver_at_ms:
            if view is self.view and answer.message_id not in self.scheduled:
                self._world.broken("I1", f"{intent.channel} {answer.message_id} is acknowledged as scheduled, and is not")
            return
        log = view.get((intent.channel, answer.epoch), {})
        entry = log.get(answer.offset)
        if entry is None or entry.message_id != answer.message_id or entry.payload != intent.payload:
            self._world.broken("I1", f"{intent.channel}: {answer} is said, and on the disk is {entry}")
        intent.entry = entry
        if self._world.tracing:
            self._world.trace("acknowledged:", intent.channel, answer.offset, answer.message_id, intent.payload[:12])

    # --------------------------------------------------------------------------------------------------------- questions

    def place(self, message_id: str) -> Entry | None:
        """The entry of this id in the present logs."""
        return self._places.get(message_id)

    def overtaken(self, entry: Entry) -> bool:
        """Whether it is recalled, superseded or over for everybody."""
        return entry.recalled or entry.superseded or 0 < entry.expires_at_ms <= self.latest_ms

    def excused(self, entry: Entry, device_id: str, process: object = None) -> bool:
        """Whether the device need not get the entry any more; as `process` sees it, if one is named."""
        if device_id in entry.dead or self.overtaken(entry):
            return True
        return process is not None and entry.given_up.get(device_id) is process

    def waiting(self) -> list[str]:
        """Ids of scheduled messages that have not gone out."""
        return [
            message_id
            for message_id, scheduled in self.scheduled.items()
            if not scheduled.gone and not 0 < scheduled.draft.expires_at_ms <= self.latest_ms
        ]

    def check_promises(self) -> None:
        """Everything acknowledged is in the logs still, but for what disasters took."""
        if self.disasters:
            return
        for intent in self.intents.values():
            if intent.message_id and intent.message_id not in self._places and intent.message_id not in self.scheduled:
                self._world.broken("I1", f"{intent} was acknowledged and is gone")


def _appended(result: Any) -> Iterator[Appended]:
    """What is new in the logs by an operation's result."""
    if isinstance(result, Appended):
        yield result
    elif isinstance(result, Accepted) and result.appended is not None:
        yield result.appended
    elif isinstance(result, list | tuple):
        for one in result:
            yield from _appended(one)
