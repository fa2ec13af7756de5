"""The node among the others: what it says, hears and obeys. The store is the one in memory, made slow; time is a Clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from streampush.config import AdmissionConfig, StoreConfig
from streampush.push.values import NodeOrder, NodeRecord, NodeState
from streampush.server.admission import Admission
from streampush.server.capacity import HandshakeCapacity
from streampush.server.governor import ANNOUNCED_EVERY, Governor
from streampush.server.leaving import DRAINED, Leaving, Why
from streampush.server.member import NodeMember
from streampush.server.membership import LEASE, Membership
from streampush.server.namesakes import SURE_AFTER, Namesakes
from streampush.store.memory import MemoryStore
from tests.server.test_leaving import Counted, Guest
from tests.store.slow import Call, SlowStore

ME = NodeRecord("n1", 5)
OTHER = NodeRecord("n2", 1, cap=100, handshakes_per_second=50.0, free_per_second=50.0)


class Hearing:
    """A Member that notes what it hears."""

    def __init__(self) -> None:
        self.others: list[list[str]] = []
        self.orders: list[NodeOrder] = []
        self.states: list[NodeState] = []

    def describe(self) -> NodeRecord:
        return ME

    def heard(self, others: Sequence[NodeRecord]) -> None:
        self.others.append([other.name for other in others])
        self.states = [other.state for other in others]

    def obey(self, order: NodeOrder) -> None:
        self.orders.append(order)


class MembershipTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.memory = MemoryStore(StoreConfig(), lambda: int(self.clock.seconds() * 1000), lambda: "e")
        self.slow = SlowStore(self.memory, self.begun)
        self.is_slow = False
        self.hearing = Hearing()
        self.namesakes = Namesakes()
        self.membership = Membership(
            self.slow,
            self.hearing,
            self.namesakes,
            wall_ms=lambda: int(self.clock.seconds() * 1000),
            call_later=self.clock.callLater,
            spawn=Deferred.fromCoroutine,
        )

    def begun(self, call: Call) -> None:
        if not self.is_slow:
            call.finish()

    def living(self) -> list[str]:
        return [known.record.name for known in self.successResultOf(Deferred.fromCoroutine(self.memory.nodes()))]

    def test_the_node_is_announced_at_once_and_again_and_again(self) -> None:
        self.membership.start()
        for _ in range(int(3 * LEASE / ANNOUNCED_EVERY)):
            self.assertEqual(self.living(), ["n1"])
            self.clock.advance(ANNOUNCED_EVERY)

    def test_an_earlier_process_of_the_name_that_stays_is_warned_of_once_and_forgotten_when_it_is_gone(self) -> None:
        logged = self.logged()
        self.membership.start()
        for turn in range(2 * SURE_AFTER):
            self.announce(replace(ME, started_at_ms=1, address="n1.old:7443"))
            self.clock.advance(ANNOUNCED_EVERY)
            self.assertEqual((self.namesakes.number, len(logged)), (1, int(turn + 1 >= SURE_AFTER)))
        self.assertIn("under the name of this node, n1: the one at n1.old:7443. Set node.name", logged[0])
        self.clock.advance(LEASE)
        self.assertEqual((self.namesakes.number, len(logged)), (0, 2))
        self.assertEqual(logged[1], "no other process serves as n1 any more")
        self.assertNotIn("n1", self.hearing.others[-1])

    def test_a_later_process_of_the_name_is_warned_of_too(self) -> None:
        logged = self.logged()
        self.membership.start()
        for _ in range(SURE_AFTER):
            self.announce(replace(ME, started_at_ms=9, address="n1.new:7443"))
            self.clock.advance(ANNOUNCED_EVERY)
        self.assertIn("the one at n1.new:7443", logged[0])

    def test_processes_of_an_upgrade_are_not_warned_of(self) -> None:
        logged = self.logged()
        self.membership.start()
        for state, turns in (
            (NodeState.SERVING, SURE_AFTER - 1),
            (NodeState.DRAINING, SURE_AFTER),
            (NodeState.STARTING, SURE_AFTER),
        ):
            for _ in range(turns):
                self.announce(replace(ME, started_at_ms=1, state=state))
                self.clock.advance(ANNOUNCED_EVERY)
        self.announce(replace(ME, started_at_ms=9, state=NodeState.STARTING))
        self.clock.advance(ANNOUNCED_EVERY)
        self.assertEqual((logged, self.namesakes.number), ([], 0))

    def announce(self, record: NodeRecord) -> None:
        until_ms = int((self.clock.seconds() + LEASE) * 1000)
        self.successResultOf(Deferred.fromCoroutine(self.memory.announce_node(record, until_ms)))

    def logged(self) -> list[str]:
        """What the log says from now on of processes of one name."""
        texts: list[str] = []

        def observe(event: LogEvent) -> None:
            if isinstance(event.get("log_source"), Namesakes):
                texts.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return texts

    def test_another_one_that_is_told_to_drain_takes_nobody_also_before_it_has_heard_so(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.memory.announce_node(OTHER, 100_000)))
        self.successResultOf(Deferred.fromCoroutine(self.memory.order_drain("n2", drain=True)))
        self.membership.start()
        self.assertEqual(self.hearing.states, [NodeState.DRAINING])
        self.successResultOf(Deferred.fromCoroutine(self.memory.order_drain("n2", drain=False)))
        self.clock.advance(ANNOUNCED_EVERY)
        self.assertEqual(self.hearing.states, [NodeState.SERVING])

    def test_it_hears_of_the_others_and_what_is_wished(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.memory.announce_node(OTHER, 100_000)))
        self.membership.start()
        self.successResultOf(Deferred.fromCoroutine(self.memory.order_drain("n1", drain=True)))
        self.clock.advance(ANNOUNCED_EVERY)
        self.assertEqual(self.hearing.others, [["n2"], ["n2"]])
        self.assertEqual(self.hearing.orders, [NodeOrder(), NodeOrder(drain=True)])

    def test_while_the_store_is_away_nothing_changes_and_then_it_goes_on(self) -> None:
        self.is_slow = True
        self.membership.start()
        self.slow.fail("announce_node")
        self.is_slow = False
        self.assertEqual(self.hearing.orders, [])
        self.clock.advance(ANNOUNCED_EVERY)
        self.assertEqual(self.hearing.orders, [NodeOrder()])

    def test_a_store_that_is_slow_gets_one_question_at_a_time(self) -> None:
        self.is_slow = True
        self.membership.start()
        self.clock.advance(ANNOUNCED_EVERY)
        self.clock.advance(ANNOUNCED_EVERY)
        (call,) = self.slow.calls
        call.finish()
        (call,) = self.slow.calls[-1:]
        call.finish()
        self.assertEqual(self.hearing.orders, [NodeOrder()])

    def test_a_node_that_stops_is_gone_at_once_and_leaves_no_timer(self) -> None:
        self.membership.start()
        self.successResultOf(Deferred.fromCoroutine(self.membership.stop()))
        self.assertEqual((self.living(), self.clock.getDelayedCalls()), ([], []))

    def test_a_node_stops_also_while_the_store_is_away(self) -> None:
        self.membership.start()
        self.is_slow = True
        stopped = Deferred.fromCoroutine(self.membership.stop())
        self.slow.fail("retire_node")
        self.successResultOf(stopped)
        self.clock.advance(LEASE)
        self.assertEqual(self.living(), [])

    def test_a_store_that_is_known_to_be_away_is_not_waited_for(self) -> None:
        self.membership.start()
        announced = len(self.slow.calls)
        self.is_slow = True
        self.successResultOf(Deferred.fromCoroutine(self.membership.stop(tells=False)))
        self.assertEqual((len(self.slow.calls), self.clock.getDelayedCalls()), (announced, []))


class NodeMemberTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.ready = True
        self.reasons: list[str] = []
        self.guests = [Guest(self.clock) for _ in range(10)]
        self.admission = Admission(AdmissionConfig(accept_rate=80.0), 100)
        self.governor = Governor(HandshakeCapacity(0.5, 80.0, lambda: 0.0), Random(1))
        self.leaving = Leaving(
            lambda: self.guests,
            self.governor,
            Counted(),
            clock=self.clock.seconds,
            call_later=self.clock.callLater,
            random=Random(2),
        )
        self.member = NodeMember(
            ME,
            address=lambda: "n1:7443",
            admission=self.admission,
            governor=self.governor,
            leaving=self.leaving,
            ready=lambda: self.ready,
            drained=self.reasons.append,
            clock=self.clock.seconds,
        )
        self.member.heard([OTHER])

    def left(self) -> int:
        return sum(guest.leaving for guest in self.guests)

    def test_it_says_how_it_stands(self) -> None:
        self.admission.admit("192.0.2.1", 0.0)
        self.governor.capacity.made(0.001, 0.0, resumed=False)
        expected = replace(
            ME, address="n1:7443", connections=1, cap=100, handshakes_per_second=80.0, free_per_second=79.9, is_measured=False
        )
        self.assertEqual(self.member.describe(), expected)

    def test_a_node_that_is_not_ready_is_starting(self) -> None:
        self.ready = False
        self.assertEqual(self.member.describe().state, NodeState.STARTING)

    def test_told_to_drain_it_refuses_and_says_why_and_sends_its_connections_elsewhere(self) -> None:
        self.member.obey(NodeOrder(drain=True))
        self.assertEqual(self.admission.admit("192.0.2.1", 0.0), "draining")
        self.assertEqual((self.member.describe().state, self.reasons), (NodeState.DRAINING, [DRAINED]))
        self.clock.pump([0.1] * 5)
        self.assertEqual(self.left(), 10)

    def test_the_same_order_again_changes_nothing(self) -> None:
        for _ in range(3):
            self.member.obey(NodeOrder(drain=True))
        self.assertEqual(self.reasons, [DRAINED])

    def test_told_to_serve_it_takes_connections_again(self) -> None:
        self.member.heard([])
        self.member.obey(NodeOrder(drain=True))
        self.member.obey(NodeOrder())
        self.assertEqual(self.admission.admit("192.0.2.1", 0.0), None)
        self.assertEqual((self.reasons, self.left(), self.clock.getDelayedCalls()), ([DRAINED, ""], 0, []))

    def test_a_move_is_done_once(self) -> None:
        for _ in range(3):
            self.member.obey(NodeOrder(move_id="m1", keep=8))
            self.clock.pump([0.1] * 5)
        self.assertEqual(self.left(), 2)
        self.member.obey(NodeOrder(move_id="m2", keep=5))
        self.clock.pump([0.1] * 5)
        self.assertEqual(self.left(), 5)

    def test_a_node_that_is_being_stopped_obeys_nobody(self) -> None:
        self.member.heard([replace(OTHER, cap=0)])
        self.admission.draining = True
        self.leaving.stop("stopped", 10.0)
        self.member.obey(NodeOrder(drain=True))
        self.member.obey(NodeOrder())
        self.assertEqual((self.leaving.why, self.admission.draining, self.reasons), (Why.STOP, True, []))
