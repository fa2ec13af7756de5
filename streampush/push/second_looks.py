"""Pushes that wait with the sender are looked at again, if other nodes may have made them unwanted meanwhile.

What happens on this node takes a push back at once (`under_way`). A device that acknowledges on another node, registers another
token there, or a message that is recalled there, is known to the store alone. Nobody else knows that the push waits here, and
there are far more acknowledgements than pushes that wait, so it is the node with the push that looks. What is sent within the
first interval, which is nearly all, costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streampush.push.ports import Delayer, Spawner
from streampush.push.rounds import Rounds
from streampush.push.standing import Standings, over
from streampush.push.store_ports import MessageStore
from streampush.push.under_way import UnderWay
from streampush.push.values import MessageReach, PushOrder

INTERVAL = 1.0
"""Seconds between two rounds. A push is looked at first when it has waited for one, or up to two, and then in every round."""

AT_ONCE = 200
"""Pushes that the store is asked about in one step."""

IN_A_ROUND = 2_000
"""Pushes that are looked at in one round, those first that were not for longest: a push service that is down makes thousands wait,
and what keeps the store busy must not rise with them."""


class SecondLooks:
    """Looks between `start` and `stop`. `wall_ms` gives Unix milliseconds."""

    def __init__(
        self,
        store: MessageStore,
        standings: Standings,
        under_way: UnderWay,
        *,
        wall_ms: Callable[[], int],
        call_later: Delayer,
        spawn: Spawner,
    ) -> None:
        self._store = store
        self._standings = standings
        self._under_way = under_way
        self._wall_ms = wall_ms
        self._rounds = Rounds(INTERVAL, self._look, call_later=call_later, spawn=spawn)
        self._round = 0
        self._looked: dict[str, int] = {}  # by push id: the round in which it was seen first, or looked at last

    def start(self) -> None:
        """Begins to look. Starting twice is harmless."""
        self._rounds.start()

    def stop(self) -> None:
        """Ends it; a look that is under way is the last one."""
        self._rounds.stop()

    def _due(self) -> list[PushOrder]:
        """Those that have waited since the round before, or longer."""
        self._round += 1
        orders = {order.push_id: order for order in self._under_way.orders()}
        self._looked = {push_id: self._looked.get(push_id, self._round) for push_id in orders}
        waited = sorted((push_id for push_id, last in self._looked.items() if last < self._round), key=self._looked.__getitem__)
        due = waited[:IN_A_ROUND]
        self._looked.update(dict.fromkeys(due, self._round))
        return [orders[push_id] for push_id in due]

    async def _look(self) -> None:
        """What a store that is away leaves out is looked at in a later round, and in any case before it is sent anew."""
        orders = self._due()
        for first in range(0, len(orders), AT_ONCE):
            await self._look_at(orders[first : first + AT_ONCE])

    async def _look_at(self, orders: Sequence[PushOrder]) -> None:
        by_message: dict[str, list[PushOrder]] = {}
        for order in orders:
            by_message.setdefault(order.message_id, []).append(order)
        asked = [(message_id, [order.device_id for order in those]) for message_id, those in by_message.items()]
        found = await self._store.reach_with(asked, results=False)
        for those, reach in zip(by_message.values(), found, strict=True):
            for order in self._unwanted(those, reach):
                self._under_way.withdraw(order)

    def _unwanted(self, orders: Sequence[PushOrder], reach: MessageReach | None) -> Sequence[PushOrder]:
        """Of pushes of one message."""
        if reach is None or over(reach.record, self._wall_ms()):
            return orders
        standings = self._standings.judged(reach.record, [order.device_id for order in orders], reach.reaches)
        return [
            order
            for order, standing in zip(orders, standings, strict=True)
            if standing.token is None or standing.token.token != order.token.token
        ]
