"""When the server wants a client back, kept over the client's own restarts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from streampush.client import Appointed, Connected, Disconnected, Fault, FileAppointments
from streampush.client.appointments import MAX_FILE_BYTES, Appointment, MemoryAppointments
from streampush.protocol import messages as m
from streampush.protocol.codes import Advice
from tests.client.peer import Stage
from tests.client.test_stream import StageCase

WALL = 1_800_000_000.0
GOAWAY = m.GoAway(1004, Advice.RECONNECT_ELSEWHERE, "drain", 30_000, 0, 10_000)


class RestartTests(StageCase):
    def stage(self, **options: Any) -> Stage:
        return super().stage(wall=lambda: WALL + self.wall_moved, addresses=2, **options)

    wall_moved = 0.0

    def sent_away(self, store: Any) -> Stage:
        stage = self.stage(appointments=store)
        stage.start()
        stage.peer.session.drain(0, GOAWAY)
        stage.peer.flush()
        stage.advance(0)
        return stage

    def test_a_client_that_is_started_again_waits_for_its_moment_and_goes_where_it_was_sent(self) -> None:
        store = MemoryAppointments()
        self.sent_away(store)
        self.assertEqual(store.load(), Appointment(int((WALL + 30) * 1000), "host1:7443"))
        self.wall_moved = 10.0
        again = self.stage(appointments=store)
        again.client.start()
        again.advance(19.9)
        self.assertEqual((again.network.attempts, again.heard(Appointed)), ([], [Appointed(20.0)]))
        again.advance(0.2)
        self.assertEqual(again.network.attempts, [(20.0, ("host1", 7443))])

    def test_a_client_that_is_back_has_no_appointment_any_more(self) -> None:
        store = MemoryAppointments()
        stage = self.sent_away(store)
        stage.advance(30.1)
        self.assertEqual(len(stage.heard(Connected)), 2)
        self.assertIsNone(store.load())

    def test_after_its_moment_a_client_begins_at_once(self) -> None:
        store = MemoryAppointments(Appointment(int((WALL - 1) * 1000), "host1:7443"))
        stage = self.stage(appointments=store)
        stage.start()
        self.assertEqual((stage.network.attempts, stage.heard(Appointed)), ([(0.0, ("host0", 7443))], []))
        self.assertIsNone(store.load())

    def test_a_clock_that_was_set_back_does_not_keep_a_client_away_for_days(self) -> None:
        store = MemoryAppointments(Appointment(int((WALL + 86_400) * 1000), "host1:7443"))
        stage = self.stage(appointments=store)
        stage.start()
        self.assertEqual(len(stage.network.attempts), 1)

    def test_an_address_that_is_no_longer_configured_is_the_first(self) -> None:
        stage = self.stage(appointments=MemoryAppointments(Appointment(int((WALL + 1) * 1000), "gone:7443")))
        stage.client.start()
        stage.advance(1.0)
        self.assertEqual(stage.network.attempts, [(1.0, ("host0", 7443))])

    def test_a_client_that_is_stopped_while_it_waits_keeps_its_appointment(self) -> None:
        store = MemoryAppointments()
        stage = self.sent_away(store)
        stage.run(stage.client.stop())
        self.assertIsNotNone(store.load())

    def test_a_store_that_fails_is_told_and_changes_nothing_else(self) -> None:
        stage = self.sent_away(Failing())
        stage.advance(30.1)
        self.assertEqual(len(stage.heard(Connected)), 2)
        self.assertEqual(stage.heard(Fault), [Fault(0, "the appointment store raised OSError")] * 3)
        self.assertEqual(stage.heard(Disconnected)[0].next_try_in, 30.0)


class Failing:
    def load(self) -> Appointment | None:
        raise OSError("load")

    def save(self, appointment: Appointment) -> None:
        raise OSError("save")

    def forget(self) -> None:
        raise OSError("forget")


@pytest.fixture
def path() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "appointments" / "device-1.json"


def test_a_file_gives_what_was_put_there_last(path: Path) -> None:
    files = FileAppointments(path)
    assert files.load() is None
    files.save(Appointment(5, "a:1"))
    files.save(Appointment(6, "b:2"))
    assert FileAppointments(path).load() == Appointment(6, "b:2")
    files.forget()
    files.forget()
    assert files.load() is None
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "5", '{"not_before_ms": 5}', '{"not_before_ms": "5", "address": "a:1"}', "x" * MAX_FILE_BYTES, "\x00"],
)
def test_a_file_that_makes_no_sense_is_no_appointment(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    assert FileAppointments(path).load() is None


def test_a_file_with_more_in_it_is_one_still(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"not_before_ms": 5, "address": "a:1", "more": 1}))
    assert FileAppointments(path).load() == Appointment(5, "a:1")


def test_a_folder_that_cannot_be_written_is_said_and_leaves_nothing(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(OSError, match="device-1"):
        FileAppointments(path).save(Appointment(5, "a:1"))
    assert list(path.parent.iterdir()) == [path]
