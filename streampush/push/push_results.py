"""What became of pushes, on its way to the store: in batches, apart from sending, so that neither has to wait for the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults

from streampush.errors import Refused, StoreUnavailable
from streampush.push.ports import Scheduler, Spawner
from streampush.push.push_groups import PushGroup, UserGroup
from streampush.push.store_ports import Store
from streampush.push.values import PUSH, PushRecord, PushResult, PushToken

BATCH = 500
"""Results that are stored in one step."""

GROUPS = 200
"""Messages to users whose results are stored with them: each is of few devices."""


class PushInWork:
    """A push that this node has taken from the outbox. `lease`: the newest token of its work, which changes if the work is leased
    again while it is still in work here; `attempts`: how often it was leased. `work`: its kind and key in the outbox; `group`:
    if it has no work of its own."""

    __slots__ = (
        "again_ms",
        "attempts",
        "body",
        "dead",
        "decided",
        "device_id",
        "group",
        "held",
        "key",
        "lease",
        "message_id",
        "result",
        "work",
    )

    def __init__(self, key: str, body: bytes, lease: str, attempts: int, group: PushGroup | None = None) -> None:
        self.key = key
        self.group = group
        self.attempts = attempts
        self.message_id, _, self.device_id = key.partition("/")
        self.body = body
        self.lease = lease
        self.decided = False  # whether it is sent, or when it is looked at again
        self.result: PushResult | None = None
        self.work = PUSH, key
        self.held: int | None = None  # see push.held: it waits for something to be mended, and how often that was when it was told
        self.again_ms = 0  # without a result: when the work is to be done again, Unix milliseconds
        self.dead: tuple[PushToken, int] | None = None  # the device's token, and until when it was good at most


class PushResults:
    """Stores how pushes ended, and that their work is done or to be done later. `stored` and `stored_groups` are told of them;
    `drop_token` forgets a device's token if it was not registered after a time.

    Bounded by what is in work: the owner leases no more than it can hold.
    """

    def __init__(
        self,
        store: Store,
        drop_token: Callable[[str, bytes, int], Awaitable[bool]],
        stored: Callable[[Sequence[PushInWork]], None],
        stored_groups: Callable[[Sequence[PushGroup]], None],
        *,
        call_soon: Scheduler,
        spawn: Spawner,
        retry_later: Callable[[Callable[[], None]], object],
    ) -> None:
        self._store = store
        self._drop_token = drop_token
        self._stored = stored
        self._stored_groups = stored_groups
        self._call_soon = call_soon
        self._spawn = spawn
        self._retry_later = retry_later
        self._due: dict[str, PushInWork] = {}
        self._groups: dict[str, PushGroup] = {}
        self._begun = False  # a run is under way, or will be
        self._running = False
        self._waiting: list[Deferred[None]] = []  # for the end of the run

    def __len__(self) -> int:
        return len(self._due)

    @property
    def groups(self) -> int:
        """Groups whose results wait for the store."""
        return len(self._groups)

    def add(self, push: PushInWork) -> None:
        """The push has its result, or is to be sent again later."""
        self._due[push.key] = push
        self._begin()

    def add_group(self, group: PushGroup) -> None:
        """All its pushes have ended so, or are to be sent again later."""
        self._groups[group.key] = group
        self._begin()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._call_soon(self._start)

    def _start(self) -> None:
        if not self._running:
            self._spawn(self._run())

    async def settle(self) -> bool:
        """Stores what is due, at once; False if the store cannot take it now."""
        if self._running:
            done: Deferred[None] = Deferred()
            self._waiting.append(done)
            await done
        elif self._due or self._groups:
            await self._run()
        return not self._due and not self._groups

    async def _run(self) -> None:
        self._begun = self._running = True
        try:
            while self._due or self._groups:
                await self._step()
        except StoreUnavailable:
            self._retry_later(self._start)
        except Exception:  # a fault of ours, which must not keep results from being stored for good
            self._retry_later(self._start)
            raise
        else:
            self._begun = False
        finally:
            self._running = False
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)

    async def _step(self) -> None:
        """What ends by its results alone comes first: it makes the room in the outbox that others may wait for."""
        alone: list[UserGroup] = []
        others: list[PushGroup] = []
        for group in self._groups.values():
            if isinstance(group, UserGroup) and group.ends_with_results:
                alone.append(group)
            else:
                others.append(group)
        if self._due or alone:
            await self._write(list(islice(self._due.values(), BATCH)), alone[:GROUPS])
        if others:
            await _all(self._finish(group) for group in others)

    async def _finish(self, group: PushGroup) -> None:
        """The end of a group's work, with what it leads to and what is counted, in one step."""
        lease = group.lease
        await _all(self._drop_token(device_id, token.token, at_ms) for device_id, token, at_ms in group.dead)
        records = group.records()
        try:
            replaced = await self._store.outbox_replace(lease, group.works(), records)
        except StoreUnavailable:
            raise
        except Refused as full:  # until there is room
            raise StoreUnavailable(full.detail) from full
        if not replaced and records and isinstance(group, UserGroup):  # whoever has the lease now need not push to them again
            await self._store.record_pushes(records)
        if group.lease == lease:  # see _write
            del self._groups[group.key]
            self._stored_groups([group])

    async def _write(self, batch: list[PushInWork], groups: list[UserGroup]) -> None:
        """Dead tokens first: of what is recorded nobody knows any more that there is something left to do."""
        leases = [push.lease for push in batch]
        group_leases = [group.lease for group in groups]
        dead = [(push.device_id, *push.dead) for push in batch if push.dead is not None]
        dead += [one for group in groups for one in group.dead]
        await _all(self._drop_token(device_id, token.token, at_ms) for device_id, token, at_ms in dead)
        records = [
            PushRecord(push.message_id, push.device_id, push.result, lease)
            for push, lease in zip(batch, leases, strict=True)
            if push.result is not None
        ]
        for group, lease in zip(groups, group_leases, strict=True):
            records += group.records_under(lease)
        if records:
            await self._store.record_pushes(records)
        again = [(lease, push.again_ms) for push, lease in zip(batch, leases, strict=True) if push.result is None]
        await _all(self._store.outbox_release(lease, at_ms) for lease, at_ms in again)
        stored = [push for push, lease in zip(batch, leases, strict=True) if push.lease == lease]
        for push in stored:  # of others the work was leased anew meanwhile, and that lease is to be ended too
            del self._due[push.key]
        self._stored(stored)
        ended = [group for group, lease in zip(groups, group_leases, strict=True) if group.lease == lease]
        for group in ended:
            del self._groups[group.key]
        if ended:
            self._stored_groups(ended)


async def _all(works: Iterable[Awaitable[Any]]) -> None:
    """Runs them together: the store does what comes together in one step. Raises what the first failure was."""
    runs = [Deferred.fromCoroutine(_one(work)) for work in works]
    try:
        await gatherResults(runs, consumeErrors=True)
    except FirstError as first:
        first.subFailure.raiseException()


def _one(work: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    async def run() -> Any:
        return await work

    return run()
