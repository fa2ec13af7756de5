"""The port of the store: what `push/` needs of whatever outlives a connection, in parts by what they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from streampush.protocol.terms import Durability
from streampush.push.values import (
    Accepted,
    Appended,
    ChannelPresence,
    Close,
    Cursor,
    CursorMove,
    DeadLetter,
    DeviceRecord,
    Draft,
    DurableSubscription,
    Head,
    Idempotency,
    KnownNode,
    Mark,
    MessageReach,
    MessageRecord,
    NodeOrder,
    NodeRecord,
    OutboxEntry,
    OutboxWork,
    Page,
    PushRecord,
    Reach,
    Session,
    StoreStatus,
    Survey,
    Undeliverable,
    Want,
)


class LogStore(Protocol):
    """The logs of the channels."""

    @property
    def durability(self) -> Durability:
        """What an append gives at best."""

    async def append(self, draft: Draft) -> Accepted:
        """Adds to the end of the channel's log, which is begun if need be; returns when it is as durable as promised.

        In one step, and in this order: the recipient must be known; a known idempotency key gives the first answer
        (`duplicate`); a `version` that is not above the newest of the channel and collapse key stores nothing (`superseded`);
        with `deliver_at_ms` the draft is kept until then (`fire_due`); else it is appended, and marks the earlier entry of the
        same collapse key as superseded. A version is known as long as the log has its entry, a key until it expires,
        of each scope only the newest `max_idempotency_keys`, and of all only the newest `max_idempotency_keys_total`.

        What is appended with a `fallback` leads, in the same step, to work in the outbox that is due when it was published: of the
        kind FALLBACK, the message id as key. What is kept until its time leads to it then.

        What is asked for at once is done in the order in which it was asked for, but where Redis is told to forget its scripts
        meanwhile.

        Raises Refused: UNKNOWN_RECIPIENT for a device that was never remembered, or a user that no device is bound to;
        DUPLICATE for a key that was used with another fingerprint; QUOTA_EXCEEDED if the store is full by its own limits, that of
        the outbox too if there is a `fallback`. Then nothing was changed.
        """

    async def first_answer(self, idempotency: Idempotency) -> Accepted | None:
        """The answer that an append with this key has had, one that was asked for before this call too, as a `duplicate`; None
        if the key is not known. Raises Refused(DUPLICATE)."""

    async def head(self, channel: str) -> Head:
        """The state of the channel's log; of one that is not begun, with the epoch that it will have. Begins nothing, so that
        following a channel costs the store no room."""

    async def peek(self, channel: str) -> Head | None:
        """The state of the channel's log, or None if nothing was ever appended."""

    async def read(self, channel: str, after: int, max_messages: int, max_bytes: int) -> Page:
        """Publications with offset > `after`, oldest first: at least one if there is any, at most `max_messages`, and no more
        than `max_bytes` of payload but for the first. Looks at a bounded number of entries: a page may be empty and still not
        at the end.

        Left out: what expired, what a newer publication of its collapse key superseded, what was recalled.
        """

    async def survey(self, device_id: str, wants: Sequence[Want]) -> Sequence[Survey]:
        """For each wanted channel, in their order, what recovery needs to know, all as of one moment. Begins nothing."""

    async def count_readable(self, spans: Sequence[tuple[str, int, int]]) -> Sequence[int]:
        """For each channel with two offsets, in their order: how many publications with first < offset <= second may be read now.
        Looks at each entry between them: the caller sees to it that they are not too many."""

    async def take_trimmed(self, limit: int) -> Sequence[tuple[str, int]]:
        """At most so many channels that have dropped, by their limits, entries that could still be read, each with its floor before
        that. Each is told once, to whoever asks first. A bounded number is remembered, as long as the process lives or longer."""

    async def next_due_ms(self) -> int | None:
        """When the first scheduled publication is due; None if there is none."""

    async def fire_due(self, now_ms: int, limit: int) -> Sequence[Appended]:
        """Appends at most `limit` scheduled publications that are due, the earliest first; `now_ms` is when they are published.

        Dropped is one that has expired, whose `version` was overtaken, or whose recipient was forgotten. What was accepted is
        appended whatever the quotas say. Fewer than `limit`, even none, may be given although more are due: ask `next_due_ms`.
        """

    async def status(self) -> StoreStatus:
        """How much is held; cheap enough to be asked every few seconds."""


class CursorStore(Protocol):
    """How far devices are, and what they follow for good."""

    async def cursors(self, device_id: str) -> Mapping[str, Cursor]:
        """All cursors of the device, by channel; at most as many as the store keeps of one device."""

    async def record(
        self, moves: Sequence[CursorMove], marks: Sequence[Mark] = (), undeliverable: Sequence[Undeliverable] = ()
    ) -> Sequence[Appended]:
        """What connections have reached, in one step. Gives the recall notices that it led to.

        A move back within the same epoch is ignored; at the same offset `attempts` is replaced and `processed` may only rise. A
        device keeps a bounded number of cursors: the one not moved for longest is dropped, those of durable subscriptions last.

        Receipts: of messages to devices and users each device gets a time for the marks, DEAD_LETTERED, DELIVERED (offsets that
        the move passed), and PROCESSED (that `processed` passed); the first time stands. What was dead-lettered is not
        delivered, and what was rejected not processed; what may no longer be read, because it has expired, was superseded or
        recalled, only if it was WRITTEN. Of topic messages with `want_receipt` the milestones are counted, those of moves only
        while the message may be read. What names another epoch than the log's changes no receipt, and makes no dead letter.

        A publication with `clear_on_processed` is recalled in the same step, when a device has a time for PROCESSED; its notice has
        the id that `ids.clearing_id` makes of the publication's.

        An undeliverable publication becomes a dead letter if it may still be read; the oldest letters of a device above the
        limit go.
        """

    async def forget_cursor(self, device_id: str, channel: str) -> None:
        """The device has unsubscribed."""

    async def add_subscription(self, device_id: str, channel: str, at_ms: int, at_most: int) -> bool:
        """Makes the subscription durable; False if it was. Raises Refused: QUOTA_EXCEEDED if the device has `at_most` others,
        UNKNOWN_RECIPIENT if it was never remembered."""

    async def remove_subscription(self, device_id: str, channel: str) -> bool:
        """The subscription is no longer durable; False if it was not."""

    async def subscriptions(self, device_id: str) -> Sequence[DurableSubscription]:
        """The device's durable subscriptions, in order of their channels."""

    async def subscribers(self, channel: str, after: str, limit: int) -> Sequence[str]:
        """The ids of at most so many devices with a durable subscription to the channel, in their order, those behind the id
        `after`; so that all can be read in steps, each of which costs the same however many they are."""


class DeviceStore(Protocol):
    """The devices, and what they did not take."""

    async def device(self, device_id: str) -> DeviceRecord | None:
        """The device, if it was ever remembered."""

    async def remember_device(self, record: DeviceRecord) -> None:
        """Adds or replaces the device. Raises Refused(QUOTA_EXCEEDED).

        A push token is that of one device, because it stands for one app on one phone: another device that has the same token
        loses it (the app was installed anew), unless it was registered there later; then `record` is kept without it.
        """

    async def drop_token(self, device_id: str, token: bytes, at_ms: int) -> bool:
        """Forgets the device's push token, of which it was said that it was no longer good at that time. False, and nothing is
        changed, if the device has another one, or registered this one later."""

    async def device_of_token(self, token: bytes) -> DeviceRecord | None:
        """The device that has this push token, if there is one."""

    async def forget_device(self, device_id: str) -> bool:
        """Forgets the device with its cursors, subscriptions and dead letters; False if it was not known. Its log stays until
        it is trimmed."""

    async def devices_of_user(self, user_id: str, limit: int) -> Sequence[DeviceRecord]:
        """Devices that are bound to the user, in order of their ids."""

    async def reach(self, channel: str, device_ids: Sequence[str]) -> Sequence[Reach]:
        """How each of these devices may be reached with a message of the channel, in their order; those that are not known are
        left out. Some hundreds at a time."""

    async def devices_named(self, prefix: str, limit: int) -> Sequence[str]:
        """The first ids, in their order, of the devices whose ids begin so. For people who ask; not for every message."""

    async def dead_letters(self, device_id: str, before_ms: int, limit: int) -> Sequence[DeadLetter]:
        """The device's dead letters from before that time (0: all), the newest first."""

    async def dead_letter(self, device_id: str, message_id: str) -> DeadLetter | None:
        """One dead letter."""

    async def drop_dead_letter(self, device_id: str, message_id: str) -> bool:
        """Removes a dead letter; False if there is none."""


class MessageStore(Protocol):
    """Single messages, by id."""

    async def message(self, message_id: str, max_devices: int) -> MessageRecord | None:
        """What became of a message, with the rows of at most so many devices; None if it is neither scheduled nor in a log."""

    async def reach_with(self, asked: Sequence[tuple[str, Sequence[str]]], *, results: bool) -> Sequence[MessageReach | None]:
        """For each of these messages, in their order, how each of these devices may be reached with it, in their order, without
        those that are not known; None if the message is in no log. All as of one moment. How pushes ended is told if `results`.

        Some hundreds of devices at a time, in all.
        """

    async def reach_users(self, message_ids: Sequence[str], limit: int, *, results: bool) -> Sequence[MessageReach | None]:
        """For each of these messages, in their order, how the devices of the user that it is for may be reached with it: the first
        `limit`, in order of their ids; nobody if it is for others. None if the message is in no log. All as of one moment. How
        pushes to these devices ended is told if `results`.

        Some hundreds of messages at a time, with a small limit.
        """

    async def recall(self, message_id: str, notice_id: str, at_ms: int) -> Appended | None:
        """Takes a message back: a scheduled one is dropped (None); one in the log is delivered no more, its payload is freed,
        and a recall notice with the id `notice_id` is appended, and given. None also if it was recalled already.

        Raises Refused(UNKNOWN_RECIPIENT) if it is neither scheduled nor in a log, or is a notice itself.
        """

    async def record_pushes(self, records: Sequence[PushRecord]) -> None:
        """How pushes ended, in one step with the work that is done with them; some hundreds at a time.

        Of a message to devices and users the newest result of each device is kept as long as the log has the message; of a topic's
        message results are counted, but not that of a lease that has passed to somebody else: who has the work now will count.
        A result of a message that is not in a log is dropped; the work is done all the same.
        """

    async def push_of(self, apns_id: str) -> PushRecord | None:
        """The push to a device, of a message to devices and users, that has this id and is the last one of its message to it."""


class PresenceStore(Protocol):
    """Who is connected. A generation is a number that rises with every session of a device, on whatever node.

    Sessions are those of a run of a node (values.run_name): of the two processes of an upgrade each has its own.
    """

    async def begin_session(self, session: Session, age_ms: int = 0) -> int:
        """The device is connected from now on; gives the generation. An older session of the device is present no more.

        `age_ms`: how long ago the connection was made. 0, and nothing is changed, if another process that lives has the device by
        a connection that was made later, by more than a second: less is not sure between two processes.
        """

    async def end_session(self, device_id: str, generation: int, close: Close) -> bool:
        """The session is over, and `close` is kept in the device's record. False, and nothing is changed, if a newer one has
        begun, or it was over already."""

    async def session_follows(self, device_id: str, generation: int, channels: Sequence[str], *, follows: bool) -> None:
        """The session follows these channels, or no longer. Ignored if a newer one has begun, or it is over."""

    async def extend_run(self, run: str, until_ms: int) -> None:
        """The run lives: its sessions are present until then, if not extended again. Sessions of a run that never said so are
        present."""

    async def forget_run(self, run: str) -> None:
        """The run is over: none of its sessions is present."""

    async def forget_former(self, run: str) -> None:
        """This run of its node has begun: other runs of the node that have said that they live, and are over, are forgotten. One
        whose process is still there keeps its sessions."""

    async def session(self, device_id: str) -> Session | None:
        """The device's session, if it is present."""

    async def newer_sessions(self, sessions: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
        """Of these devices and generations those that are not the device's newest any more, with the generation that is; 0: the
        store has none that is so new, because it was ended, or lost. Some hundreds at a time."""

    async def user_sessions(self, user_id: str, limit: int) -> Sequence[Session]:
        """Sessions of the user's devices, in order of device ids."""

    async def channel_presence(self, channel: str, limit: int) -> ChannelPresence:
        """Who follows the channel; `limit` bounds the listed ids, not the count."""


class NodeStore(Protocol):
    """Which nodes there are, and what is wished of them.

    A wish is for the run of the node that it was told to: one that starts anew serves. A node that was drained, restarted and
    then refused everybody, because of an order that nobody remembers, would be worse than one that must be drained again.
    """

    async def announce_node(self, record: NodeRecord, until_ms: int) -> NodeOrder:
        """The node lives until then, if it does not say so again, and stands like this; gives what is wished of it.

        A run that began later replaces an earlier one of the same name, with what was wished of that one. An earlier run that
        speaks while a later one lives is a namesake of that, unless it drains, and nothing is wished of it. Of a run that the store
        does not know any more, because it was away for long, a drain stands that the run is in.
        """

    async def retire_node(self, name: str, started_at_ms: int) -> None:
        """This run of the node is over. Ignored if a later one has announced itself."""

    async def nodes(self) -> Sequence[KnownNode]:
        """Those that live, in order of their names."""

    async def order_drain(self, name: str, *, drain: bool) -> bool:
        """The node is to drain, or to serve again; False if no node of this name lives. It hears of it when it next announces
        itself."""

    async def order_move(self, name: str, move_id: str, keep: int) -> bool:
        """The node is to keep so many connections and send the others elsewhere, in place of what an earlier `move_id` asked for;
        False if no node of this name lives."""


class OutboxStore(Protocol):
    """Work that must be done at least once by a sender, whichever process does it. `kind` separates senders."""

    async def outbox_add(self, kind: str, key: str, body: bytes, not_before_ms: int) -> bool:
        """Adds work; False, and nothing is changed, if there is work of that kind and key. Raises Refused(QUOTA_EXCEEDED)."""

    async def outbox_lease(self, kind: str, limit: int, now_ms: int, lease_ms: int) -> Sequence[OutboxEntry]:
        """Takes at most so much work that is due and not leased, the earliest first. After `lease_ms` others may take it."""

    async def outbox_complete(self, token: str) -> bool:
        """The work is done; False if the lease has passed to somebody else."""

    async def outbox_release(self, token: str, not_before_ms: int) -> bool:
        """The work is to be done later; False if the lease has passed to somebody else."""

    async def outbox_hasten(self, kind: str, keys: Sequence[str], not_before_ms: int) -> None:
        """What there is of this work, and nobody has a lease of, is to be done at that time if it was to be done later. Some
        hundreds at a time."""

    async def outbox_replace(self, token: str, works: Sequence[OutboxWork], records: Sequence[PushRecord] = ()) -> bool:
        """The work is done, and leads to these others, all in one step; one whose kind and key are there already stays as it is,
        but the work that is done may be followed by one of its own kind and key. False, and nothing is changed, if the lease has
        passed to somebody else. `records`, without leases, are recorded in the same step, as by `record_pushes`.

        Meant for some hundreds at a time. Raises Refused(QUOTA_EXCEEDED) if one becomes several and there would be more than twice
        as many as the limit of the outbox says (what was accepted may grow so far); the lease stands then. The limit of bytes holds
        nothing up here.
        """

    async def outbox_branch(self, token: str, body: bytes, works: Sequence[OutboxWork]) -> str | None:
        """The work goes on with another body until its lease ends, and leads to these others, all in one step; one whose kind and
        key are there already stays as it is. Gives the token that the lease has from now on; None, and nothing is changed, if it
        has passed to somebody else. Refuses as `outbox_replace` does, whose limits are these."""

    async def outbox_next_ms(self, kind: str) -> int | None:
        """When the next work is due or its lease ends; None if there is none."""


class Store(LogStore, CursorStore, DeviceStore, MessageStore, PresenceStore, NodeStore, OutboxStore, Protocol):
    """Everything that outlives a connection. Every method may raise StoreUnavailable; then nothing was changed, as far as is
    known: an append that was under way when the disk failed may be there after all, and is found by its idempotency key.

    Implementations pass tests/store/contract.py.
    """
