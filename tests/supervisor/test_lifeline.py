"""A worker's end of the pipe to its supervisor, and what it is told at its start."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure

from streampush.supervised import Lifeline, Supervised, Told


class Readers:
    """A reactor's readers."""

    def __init__(self) -> None:
        self.reading: set[IReadDescriptor] = set()
        self.addReader = self.reading.add
        self.removeReader = self.reading.discard


def pipe() -> tuple[Lifeline, Readers, list[Told], int]:
    end, ours = os.pipe()
    told: list[Told] = []
    readers = Readers()
    lifeline = Lifeline(readers, told.append, end)
    lifeline.start()
    return lifeline, readers, told, ours


def test_orders_come_through_one_by_one() -> None:
    lifeline, _, told, ours = pipe()
    os.write(ours, Told.DRAIN.value + Told.HURRY.value)
    lifeline.doRead()
    assert told == [Told.DRAIN, Told.HURRY]
    os.close(ours)
    os.close(lifeline.fileno())


def test_the_end_of_the_pipe_says_that_the_supervisor_is_gone() -> None:
    lifeline, readers, told, ours = pipe()
    assert readers.reading == {lifeline}
    os.close(ours)
    lifeline.doRead()
    assert told == [Told.ORPHANED]
    assert readers.reading == set()
    os.close(lifeline.fileno())


def test_the_end_is_told_however_the_reactor_says_it() -> None:
    lifeline, readers, told, ours = pipe()
    lifeline.connectionLost(Failure(ConnectionDone()))
    assert told == [Told.ORPHANED]
    assert readers.reading == set()
    os.close(ours)
    os.close(lifeline.fileno())


def test_to_be_woken_for_nothing_is_harmless() -> None:
    lifeline, _, told, ours = pipe()
    lifeline.doRead()
    assert told == []
    os.close(ours)
    os.close(lifeline.fileno())


def test_the_environment_is_read_once() -> None:
    place = Supervised("/run/x", 3)
    environ = {"PATH": "/bin", **place.variables()}
    assert Supervised.take(environ) == place
    assert environ == {"PATH": "/bin"}
    assert Supervised.take(environ) is None


def test_a_process_without_a_supervisor_has_none() -> None:
    assert Supervised.take({"STREAMPUSH_WORKER": "x", "STREAMPUSH_SUPERVISOR": "/run/x"}) is None


def test_the_last_worker_of_a_killed_supervisor_removes_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    places = [Supervised(str(folder), number) for number in (1, 2)]
    Path(places[0].supervisor).touch()
    Path(places[1].socket).touch()
    places[0].tidy()
    assert [path.name for path in folder.iterdir()] == ["worker-2.sock"]
    Path(places[1].socket).unlink()
    places[1].tidy()
    assert not folder.exists()
