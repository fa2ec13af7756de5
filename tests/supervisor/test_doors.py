"""The queues of all workers together, on real ports."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from streampush.supervisor.doors import Doors
from streampush.supervisor.queues import Queue, bind_all, close_all
from tests.supervisor.test_queues import CONNECTIONS, close, config, connect, port_of, waiting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SO_REUSEPORT of Linux")


@pytest.fixture()
def queues() -> Iterator[list[list[Queue]]]:
    made = bind_all(config(), 2)
    yield made
    close_all(made)


def test_what_is_new_goes_to_other_workers_than_those_that_are_avoided_at_both_ports(queues: list[list[Queue]]) -> None:
    doors = Doors(queues, by_address=False)
    doors.open(1)
    doors.open(2)
    doors.avoid(frozenset({1}))
    for which in (0, 1):
        connections = connect(port_of(queues[0][which]))
        assert (waiting(queues[0][which]), waiting(queues[1][which])) == (0, CONNECTIONS)
        close(connections)
    doors.avoid(frozenset())
    connections = connect(port_of(queues[0][0]))
    assert 0 < waiting(queues[0][0]) < CONNECTIONS
    close(connections)


def test_a_worker_is_avoided_also_behind_a_parking_of_the_other(queues: list[list[Queue]]) -> None:
    doors = Doors(queues, by_address=False)
    doors.open(1)
    doors.open(2)
    doors.park(1)
    doors.avoid(frozenset({2}))
    doors.open(1)
    connections = connect(port_of(queues[0][0]))
    assert (waiting(queues[0][0]), waiting(queues[1][0])) == (CONNECTIONS, 0)
    close(connections)


def test_a_successor_knows_the_order_in_which_they_began_to_listen(queues: list[list[Queue]]) -> None:
    first = Doors(queues, by_address=False)
    first.open(2)
    first.open(1)
    names = [f"{queue.name}.{number}" for number, queue in first.listening()]
    assert names == ["stream.2", "rest.2", "stream.1", "rest.1"]
    second = Doors(queues, by_address=False, inherited=names)
    second.avoid(frozenset({1}))
    connections = connect(port_of(queues[0][0]))
    assert (waiting(queues[0][0]), waiting(queues[1][0])) == (0, CONNECTIONS)
    close(connections)


def test_where_a_queue_is_of_a_worker_that_is_no_more_nothing_is_steered(queues: list[list[Queue]]) -> None:
    doors = Doors(queues, by_address=False, inherited=["stream.3", "stream.1", "stream.2", "rest.1"])
    doors.open(1)
    doors.open(2)
    doors.avoid(frozenset({1}))
    connections = connect(port_of(queues[0][0]))
    assert 0 < waiting(queues[0][0]) < CONNECTIONS
    close(connections)
    connections = connect(port_of(queues[0][1]))
    assert (waiting(queues[0][1]), waiting(queues[1][1])) == (0, CONNECTIONS)
    close(connections)
