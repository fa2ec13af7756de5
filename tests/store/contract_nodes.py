"""Part of the contract of a store: which nodes there are, and what is wished of them."""

from __future__ import annotations

from dataclasses import replace

from streampush.push.store_ports import Store
from streampush.push.values import KnownNode, NodeOrder, NodeRecord, NodeState
from tests.store.contract_base import LIMITS, ContractBase

NODE = NodeRecord("n1", 1_000, NodeState.SERVING, "n1.example:7443", "1.2", 3, 10, 250.5, 200.25, is_measured=True, leaving=2)


class NodeContract(ContractBase):
    """announce_node, retire_node, nodes, order_drain, order_move."""

    async def announce(self, store: Store, record: NodeRecord = NODE, lease_ms: int = 100) -> NodeOrder:
        return await store.announce_node(record, self.now_ms + lease_ms)

    async def names(self, store: Store) -> list[str]:
        return [known.record.name for known in await store.nodes()]

    async def test_a_node_that_has_announced_itself_is_listed_as_it_said(self) -> None:
        store = self.make_store(LIMITS)
        assert list(await store.nodes()) == []
        assert await self.announce(store) == NodeOrder()
        assert list(await store.nodes()) == [KnownNode(NODE, NodeOrder())]

    async def test_the_last_word_of_a_node_counts(self) -> None:
        store = self.make_store(LIMITS)
        await self.announce(store)
        later = replace(NODE, state=NodeState.DRAINING, connections=1, is_measured=False)
        await self.announce(store, later)
        assert [known.record for known in await store.nodes()] == [later]

    async def test_nodes_are_listed_in_order_of_their_names(self) -> None:
        store = self.make_store(LIMITS)
        for name in ("n2", "n10", "n1"):
            await self.announce(store, replace(NODE, name=name))
        assert await self.names(store) == ["n1", "n10", "n2"]

    async def test_a_node_that_says_nothing_more_is_gone_when_its_time_is_over(self) -> None:
        store = self.make_store(LIMITS)
        await self.announce(store)
        await self.announce(store, replace(NODE, name="n2"), lease_ms=200)
        self.now_ms += 99
        assert await self.names(store) == ["n1", "n2"]
        self.now_ms += 1
        assert await self.names(store) == ["n2"]
        assert not await store.order_drain("n1", drain=True)

    async def test_a_node_that_was_late_is_back_with_its_next_word(self) -> None:
        store = self.make_store(LIMITS)
        await self.announce(store)
        self.now_ms += 1_000
        assert await self.names(store) == []
        await self.announce(store)
        assert await self.names(store) == ["n1"]

    async def test_a_retired_node_is_gone_at_once_and_retiring_twice_is_harmless(self) -> None:
        store = self.make_store(LIMITS)
        await self.announce(store)
        await store.retire_node("n1", NODE.started_at_ms)
        await store.retire_node("n1", NODE.started_at_ms)
        assert await self.names(store) == []

    async def test_a_run_retires_itself_only(self) -> None:
        store = self.make_store(LIMITS)
        await self.announce(store, replace(NODE, started_at_ms=2_000))
        await store.retire_node("n1", 1_000)
        assert await self.names(store) == ["n1"]

    # ------------------------------------------------------------------------------------------------------------ orders

    async def test_a_drain_is_told_with_the_next_announcement_until_it_is_taken_back(self) -> None:
        store = self.make_store(LIMITS)
        await self.announce(store)
        assert await store.order_drain("n1", drain=True)
        assert [known.order for known in await store.nodes()] == [NodeOrder(drain=True)]
        assert await self.announce(store) == NodeOrder(drain=True)
        assert await self.announce(store) == NodeOrder(drain=True)
        assert await store.order_drain("n1", drain=False)
        assert await self.announce(store) == NodeOrder()

    async def test_a_node_that_drains_is_not_told_to_serve_because_the_store_forgot_it(self) -> None:
        store = self.make_store(LIMITS)
        await self.announce(store)
        await store.order_drain("n1", drain=True)
        await self.announce(store)
        self.now_ms += 1_000  # as if the store had been away
        assert await self.names(store) == []
        draining = replace(NODE, state=NodeState.DRAINING)
        assert await self.announce(store, draining) == NodeOrder(drain=True)
        assert [known.order for known in await store.nodes()] == [NodeOrder(drain=True)]
        await store.order_drain("n1", drain=False)
        assert await self.announce(store, draining) == NodeOrder()

    async def test_a_move_is_told_with_its_id_and_the_next_one_takes_its_place(self) -> None:
        store = self.make_store(LIMITS)
        await self.announce(store)
        assert await store.order_move("n1", "m1", 7)
        assert await self.announce(store) == NodeOrder(move_id="m1", keep=7)
        assert await store.order_move("n1", "m2", 5)
        assert await store.order_drain("n1", drain=True)
        assert await self.announce(store) == NodeOrder(drain=True, move_id="m2", keep=5)

    async def test_an_order_is_for_one_node(self) -> None:
        store = self.make_store(LIMITS)
        await self.announce(store)
        await self.announce(store, replace(NODE, name="n2"))
        await store.order_drain("n2", drain=True)
        assert await self.announce(store) == NodeOrder()

    async def test_nobody_can_be_told_who_is_not_there(self) -> None:
        store = self.make_store(LIMITS)
        assert not await store.order_drain("n1", drain=True)
        assert not await store.order_move("n1", "m1", 1)
        assert await self.announce(store) == NodeOrder()

    async def test_a_node_that_starts_anew_serves_whatever_its_former_run_was_told(self) -> None:
        store = self.make_store(LIMITS)
        await self.announce(store)
        await store.order_drain("n1", drain=True)
        await store.order_move("n1", "m1", 7)
        assert await self.announce(store, replace(NODE, started_at_ms=2_000)) == NodeOrder()
        assert [known.order for known in await store.nodes()] == [NodeOrder()]

    async def test_what_a_former_run_still_says_changes_nothing(self) -> None:
        store = self.make_store(LIMITS)
        newer = replace(NODE, started_at_ms=2_000)
        await self.announce(store, newer)
        await store.order_drain("n1", drain=True)
        assert await self.announce(store, replace(NODE, state=NodeState.DRAINING)) == NodeOrder()
        assert list(await store.nodes()) == [KnownNode(newer, NodeOrder(drain=True))]  # it drains: the one before an upgrade

    async def test_an_earlier_run_that_still_serves_is_a_namesake_of_the_later(self) -> None:
        store = self.make_store(LIMITS)
        newer = replace(NODE, started_at_ms=5_000)
        await self.announce(store)
        await self.announce(store, newer)
        assert list(await store.nodes()) == [KnownNode(newer)]  # it has said nothing since
        others = [replace(NODE, started_at_ms=2_000, connections=7), replace(NODE, address="other:1")]
        for other in others:
            await self.announce(store, other)
        await self.announce(store, replace(NODE, name="n2"))
        assert [known.namesakes for known in await store.nodes()] == [(others[1], others[0]), ()]
        await store.retire_node("n1", 2_000)
        await self.announce(store, replace(others[1], state=NodeState.DRAINING))
        assert [known.namesakes for known in await store.nodes()] == [(), ()]

    async def test_a_namesake_that_says_nothing_more_is_none_when_its_time_is_over(self) -> None:
        store = self.make_store(LIMITS)
        newer = replace(NODE, started_at_ms=2_000)
        await self.announce(store, newer, lease_ms=200)
        await self.announce(store)
        self.now_ms += 100
        assert list(await store.nodes()) == [KnownNode(newer)]

    async def test_a_former_run_that_outlives_the_newer_is_listed_again(self) -> None:
        store = self.make_store(LIMITS)
        await self.announce(store, replace(NODE, started_at_ms=2_000))
        self.now_ms += 100
        await self.announce(store)
        assert [known.record.started_at_ms for known in await store.nodes()] == [1_000]
