"""The node's wheel after the process was stopped for a while; time is a Clock."""

from __future__ import annotations

import unittest
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger

from streampush.server.node import LATE, TICK, StreamNode
from streampush.server.wheel import NOT_SCHEDULED


class Silent:
    """A connection as the wheel sees it: a deadline, and what happens then."""

    address = "192.0.2.1:1"
    host = "192.0.2.1"

    def __init__(self, deadline: float) -> None:
        self.wheel_tick = NOT_SCHEDULED
        self.deadline = deadline
        self.ticks = 0

    def tick(self) -> None:
        self.ticks += 1
        self.deadline = float("inf")


class LateTickTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        nothing: Any = None  # contexts, gate, admission, metrics: the wheel asks none of them
        reactor: Any = self.clock
        self.node = StreamNode(
            reactor,
            nothing,
            contexts=nothing,
            gate=nothing,
            admission=nothing,
            governor=nothing,
            metrics=nothing,
            log=Logger(),
            random=nothing,
        )
        self.node.start()

    def opened(self, deadline: float) -> Silent:
        connection: Any = Silent(deadline)
        self.node.opened(connection)
        silent: Silent = connection
        return silent

    def test_a_deadline_is_met_within_a_tick(self) -> None:
        connection = self.opened(0.5)
        self.clock.pump([TICK] * 7)
        self.assertEqual(connection.ticks, 1)

    def test_what_waits_in_the_sockets_after_a_stop_is_read_before_deadlines_are_looked_at(self) -> None:
        connection = self.opened(0.5)
        self.clock.advance(100.0)
        self.assertEqual(connection.ticks, 0)
        connection.deadline = 200.0  # the reactor's turn: a frame that had arrived was read
        self.clock.advance(TICK)
        self.assertEqual(connection.ticks, 0)

    def test_a_deadline_that_passed_during_a_stop_is_met_a_turn_later(self) -> None:
        connection = self.opened(0.5)
        self.clock.advance(100.0)
        self.clock.advance(TICK)
        self.assertEqual(connection.ticks, 1)

    def test_a_process_that_is_always_late_still_meets_deadlines(self) -> None:
        connection = self.opened(0.5)
        self.clock.pump([LATE * 2] * 2)
        self.assertEqual(connection.ticks, 1)
