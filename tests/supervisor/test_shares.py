"""What each of several workers is told beside the configuration of all."""

from __future__ import annotations

import pytest

from streampush.config import AdmissionConfig, Config, ListenConfig, NodeConfig
from streampush.supervisor.shares import command, settings
from streampush.supervisor.times import SILENT_ASKS, Times


def shares(workers: int, **admission: int) -> dict[str, str]:
    config = Config(node=NodeConfig(workers=workers), admission=AdmissionConfig(**admission))
    return dict(each.split("=", 1) for each in settings(config, "push", 2, 2))


def test_a_worker_is_named_by_its_number_and_has_no_workers() -> None:
    told = shares(3)
    assert told["node.name"] == "push-2"
    assert told["node.workers"] == "0"


@pytest.mark.parametrize(("workers", "cap", "each"), [(1, 10, 10), (2, 10, 5), (3, 10, 4), (4, 1, 1)])
def test_the_connection_cap_is_shared_out_and_none_of_it_is_lost(workers: int, cap: int, each: int) -> None:
    assert shares(workers, max_connections=cap)["admission.max_connections"] == str(each)


@pytest.mark.parametrize(("workers", "limit", "each"), [(1, 1000, 1000), (4, 1000, 298), (2, 1, 1), (4, 4, 4)])
def test_an_addresss_share_has_room_for_an_uneven_spread(workers: int, limit: int, each: int) -> None:
    assert shares(workers, max_per_address=limit)["admission.max_per_address"] == str(each)


def test_an_address_that_has_one_worker_has_its_whole_limit_there() -> None:
    config = Config(node=NodeConfig(workers=4), listen=ListenConfig(steering="address"))
    assert "admission.max_per_address=1000" in settings(config, "push", 2, 2)


def test_what_bounds_the_work_of_a_core_is_not_shared_out() -> None:
    assert {key for key in shares(4) if key.startswith("admission.")} == {
        "admission.max_connections",
        "admission.max_per_address",
        "admission.handshake_share",
    }


@pytest.mark.parametrize(("workers", "share"), [(1, 0.5), (2, 0.5), (4, 0.25), (8, 0.125), (1000, 0.01)])
def test_more_workers_than_cores_promise_no_more_than_the_cores_can_do(workers: int, share: float) -> None:
    assert float(shares(workers)["admission.handshake_share"]) == share


def test_a_command_line() -> None:
    assert command("python", "program", None, "/x.toml", ("a.b=c d",)) == [
        "python", "-c", "program", "--nodaemon", "--pidfile=", "streampush", "--config", "/x.toml", "--set", "a.b=c d",
    ]  # fmt: skip
    assert command("python", "program", "poll", "/x.toml", ())[3:5] == ["--reactor", "poll"]


@pytest.mark.parametrize("timeout", [0.5, 1.0, 15.0, 600.0])
def test_a_worker_that_hangs_is_found_in_the_time_that_is_set(timeout: float) -> None:
    times = Times.of(Config(node=NodeConfig(worker_timeout=timeout)))
    assert SILENT_ASKS * (times.ask_interval + times.ask_deadline) == pytest.approx(timeout)
    assert 0 < times.ask_interval <= 1.0
