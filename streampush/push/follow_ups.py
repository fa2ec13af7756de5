"""Following up messages with an alert: `fallback` decides who is to be pushed to, `pushing` does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from streampush.push.fallback import Fallback
from streampush.push.ports import Delayer, PushMetrics, PushSender, Scheduler, Spawner
from streampush.push.pushing import Pushing
from streampush.push.second_looks import SecondLooks
from streampush.push.standing import Standings
from streampush.push.store_ports import Store
from streampush.push.under_way import UnderWay


class FollowUps:
    """Both of them, from `start` to `stop`. `drop_token` forgets a device's token if it was not registered after a time.

    `under_way` is to be told of what makes a push unwanted; `shared`: other nodes may learn of such things, too.
    """

    def __init__(
        self,
        store: Store,
        sender: PushSender,
        standings: Standings,
        drop_token: Callable[[str, bytes, int], Awaitable[bool]],
        metrics: PushMetrics,
        *,
        shared: bool,
        wall_ms: Callable[[], int],
        call_soon: Scheduler,
        call_later: Delayer,
        spawn: Spawner,
        retry_later: Callable[[Callable[[], None]], object],
    ) -> None:
        self._standings = standings
        self.under_way = UnderWay(sender.withdraw)
        self._pushing = Pushing(
            store,
            sender,
            standings,
            self.under_way,
            drop_token,
            metrics,
            again_at=self.expect,
            room_again=lambda: self._fallback.room_again(),
            wall_ms=wall_ms,
            call_soon=call_soon,
            call_later=call_later,
            spawn=spawn,
            retry_later=retry_later,
        )
        self._second_looks = (
            SecondLooks(store, standings, self.under_way, wall_ms=wall_ms, call_later=call_later, spawn=spawn) if shared else None
        )
        self._fallback = Fallback(
            store,
            standings,
            metrics,
            after=sender.fallback_after,
            has_room=sender.has_room,
            push_room=lambda: self._pushing.room,
            expect_push=self._pushing.expect,
            pushes=self._pushing,
            wall_ms=wall_ms,
            call_later=call_later,
            spawn=spawn,
            retry_later=retry_later,
        )

    @property
    def in_flight(self) -> int:
        """Pushes that are looked at or sent now."""
        return self._pushing.in_flight

    def await_devices(self, seconds: float) -> None:
        """See standing.Standings."""
        self._standings.await_devices(seconds)

    def start(self) -> None:
        """Messages are followed up from now on."""
        self._fallback.start()
        self._pushing.start()
        if self._second_looks is not None:
            self._second_looks.start()

    def stop(self) -> None:
        """What is not sent yet waits in the store for the next start. Results of what is under way are still stored."""
        self._fallback.stop()
        self._pushing.stop()
        if self._second_looks is not None:
            self._second_looks.stop()

    def expect(self, at_ms: int) -> None:
        """A message with an alert was stored."""
        self._fallback.expect(at_ms)

    async def settle(self) -> bool:
        """To be called after `stop`: waits for what is in work, and stores its results; False if the store cannot take them now.
        It takes no longer than the sender does to stop."""
        await self._fallback.quiet()
        return await self._pushing.settle()
