"""The listening sockets of workers, on real ports."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from streampush.config import Config, ListenConfig, NodeConfig, RestConfig
from streampush.errors import ConfigError
from streampush.supervisor.queues import Queue, bind_all, close_all

CONNECTIONS = 60


def config(stream: int = 0, rest: int = 0, *, rest_enabled: bool = True, address: str = "127.0.0.1") -> Config:
    listen = ListenConfig(address=address, port=stream, backlog=2 * CONNECTIONS)
    return Config(file="x.toml", node=NodeConfig(workers=2), listen=listen, rest=RestConfig(enabled=rest_enabled, port=rest))


def listening(asked: Config) -> list[list[Queue]]:
    """Of two workers, that begin to listen as the supervisor starts them: the first one first."""
    made = bind_all(asked, 2)
    for pair in made:
        for queue in pair:
            queue.listen()
    return made


@pytest.fixture()
def queues() -> Iterator[list[list[Queue]]]:
    made = listening(config())
    yield made
    close_all(made)


def port_of(queue: Queue) -> int:
    return int(queue.socket.getsockname()[1])


def waiting(queue: Queue) -> int:
    """How many connections wait; they are taken."""
    count = 0
    while True:
        try:
            taken, _ = queue.socket.accept()
        except BlockingIOError:
            return count
        taken.close()
        count += 1


def connect(port: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(CONNECTIONS)]


def close(connections: list[socket.socket]) -> None:
    for each in connections:
        each.close()


def test_every_worker_has_sockets_of_its_own_for_the_same_ports(queues: list[list[Queue]]) -> None:
    assert [[queue.name for queue in pair] for pair in queues] == [["stream", "rest"]] * 2
    assert port_of(queues[0][0]) == port_of(queues[1][0]) != 0
    assert port_of(queues[0][1]) == port_of(queues[1][1]) != port_of(queues[0][0])


def test_there_is_no_rest_queue_where_rest_is_off() -> None:
    made = bind_all(config(rest_enabled=False), 3)
    assert [[queue.name for queue in pair] for pair in made] == [["stream"]] * 3
    close_all(made)


def test_connections_are_spread_over_the_workers(queues: list[list[Queue]]) -> None:
    connections = connect(port_of(queues[0][0]))
    counts = [waiting(pair[0]) for pair in queues]
    close(connections)
    assert sum(counts) == CONNECTIONS
    assert min(counts) > 0


def test_what_waits_is_not_lost_when_a_workers_copy_is_closed(queues: list[list[Queue]]) -> None:
    copies = [pair[0].socket.dup() for pair in queues]
    connections = connect(port_of(queues[0][0]))
    for copy in copies:
        copy.close()
    assert sum(waiting(pair[0]) for pair in queues) == CONNECTIONS
    close(connections)


def test_a_parked_worker_gets_nothing_and_the_others_get_all(queues: list[list[Queue]]) -> None:
    port = port_of(queues[0][0])
    queues[1][0].park()
    connections = connect(port)
    assert waiting(queues[0][0]) == CONNECTIONS
    close(connections)
    queues[1][0].listen()
    connections = connect(port)
    assert waiting(queues[1][0]) > 0
    close(connections)


def test_what_waits_for_a_worker_that_is_parked_is_reset(queues: list[list[Queue]]) -> None:
    queues[0][0].park()
    connection = socket.create_connection(("127.0.0.1", port_of(queues[1][0])), timeout=10)
    queues[1][0].park()
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    connection.close()


def test_to_listen_twice_is_harmless(queues: list[list[Queue]]) -> None:
    queues[0][0].listen()
    connections = connect(port_of(queues[0][0]))
    assert sum(waiting(pair[0]) for pair in queues) == CONNECTIONS
    close(connections)


@pytest.mark.parametrize("key", ["listen.port", "rest.port"])
def test_a_port_that_is_taken_is_said_with_its_key(key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"x\.toml: {key}: cannot listen on 127\.0\.0\.1:{number}: Address already in use"):
            bind_all(config(number) if key == "listen.port" else config(rest=number), 2)


def test_another_supervisors_ports_are_taken_too(queues: list[list[Queue]]) -> None:
    with pytest.raises(ConfigError, match=r"listen\.port"):
        bind_all(config(port_of(queues[0][0])), 2)


def test_the_ports_of_one_that_was_closed_can_be_had_again(queues: list[list[Queue]]) -> None:
    number = port_of(queues[0][0])
    connection = socket.create_connection(("127.0.0.1", number), timeout=10)
    close_all(queues)
    connection.close()
    close_all(bind_all(config(number), 2))


def test_nothing_is_let_in_before_a_worker_is_started() -> None:
    made = bind_all(config(), 2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(made[0][0])), timeout=10)
    made[1][0].listen()
    connections = connect(port_of(made[0][0]))
    assert waiting(made[1][0]) == CONNECTIONS
    close(connections)
    close_all(made)


def test_sockets_of_a_service_manager_are_shared_by_all_and_never_parked() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=2 * CONNECTIONS) as given:
        given.setblocking(False)
        made = bind_all(config(), 2, {"stream": given})
        made[0][0].listen()
        made[0][0].park()
        connections = connect(given.getsockname()[1])
        assert waiting(made[1][0]) == CONNECTIONS
        assert made[0][1].is_shared is False
        close(connections)
        close_all(made)


def test_an_address_that_is_not_ours_is_said() -> None:
    with pytest.raises(ConfigError, match=r"listen\.port: cannot listen on 192\.0\.2\.1:0"):
        bind_all(config(address="192.0.2.1"), 1)


def test_ipv6() -> None:
    made = bind_all(config(address="::1"), 2)
    assert [pair[0].socket.family for pair in made] == [socket.AF_INET6] * 2
    assert port_of(made[0][0]) == port_of(made[1][0])
    close_all(made)


def test_connections_of_an_address_go_to_one_worker_where_they_are_steered_by_it() -> None:
    asked = config()
    made = listening(replace(asked, listen=replace(asked.listen, steering="address")))
    connections = connect(port_of(made[0][0])) + connect(port_of(made[0][1]))
    counts = [[waiting(queue) for queue in pair] for pair in made]
    assert sorted(pair[0] for pair in counts) == [0, CONNECTIONS]
    assert all(pair[1] > 0 for pair in counts)  # REST has no use for it
    close(connections)
    close_all(made)


def test_a_worker_that_was_parked_gets_addresses_again() -> None:
    asked = config()
    made = listening(replace(asked, listen=replace(asked.listen, steering="address")))
    for pair in made:
        pair[0].park()
        pair[0].listen()
        connections = connect(port_of(pair[0]))
        assert sorted(waiting(queue) for queue, _ in made) == [0, CONNECTIONS]
        close(connections)
    close_all(made)


def handed_over(queues: list[list[Queue]]) -> dict[str, socket.socket]:
    """As the queues of a supervisor come to the next one."""
    return {f"{queue.name}.{number}": queue.socket for number, pair in enumerate(queues, 1) for queue in pair}


def test_a_supervisor_goes_on_with_the_queues_of_the_one_before(queues: list[list[Queue]]) -> None:
    connections = connect(port_of(queues[0][0]))
    waited = bind_all(config(), 2, handed_over(queues))
    assert [[port_of(queue) for queue in pair] for pair in waited] == [[port_of(queue) for queue in pair] for pair in queues]
    close_all(queues)
    assert sum(waiting(pair[0]) for pair in waited) == CONNECTIONS
    close(connections)
    close_all(waited)


def test_more_workers_than_before_get_queues_beside_those_that_there_are(queues: list[list[Queue]]) -> None:
    port = port_of(queues[0][0])
    more = bind_all(config(port), 3, handed_over(queues))
    assert [port_of(pair[0]) for pair in more] == [port] * 3
    close_all(more)
