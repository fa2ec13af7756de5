"""The real launch: `twistd streampush --workers N`, with signals to the supervisor and to its worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import unittest
import urllib.request
from importlib.resources import files

from streampush.supervisor.roster import State
from tests.supervisor.launching import TIMEOUT, SupervisorTestCase


class RefusalTests(SupervisorTestCase):
    def test_several_workers_without_a_store_that_they_share(self) -> None:
        line = self.fault(3, "store.backend=sqlite")
        self.assertIn("node.workers: 3 workers need a store that they share", line)
        self.assertIn("redis", line)

    def test_a_number_that_is_none(self) -> None:
        self.assertIn("node.workers: must be a whole number", self.fault("many"))

    def test_a_port_that_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            line = self.fault(1, f"listen.port={taken.getsockname()[1]}")
        self.assertIn("listen.port: cannot listen on", line)

    def test_no_folder_for_the_sockets(self) -> None:
        self.run_folder.rmdir()
        self.assertIn(f"node.workers: no folder for their sockets in {self.run_folder}: No such file", self.fault(1))

    def test_a_folder_whose_path_is_too_long_for_a_socket(self) -> None:
        self.run_folder = self.run_folder / ("x" * 100)
        self.run_folder.mkdir()
        self.assertIn("too long a path", self.fault(1))
        self.assertEqual(list(self.run_folder.iterdir()), [])

    def test_what_only_a_worker_finds_ends_the_supervisor_too(self) -> None:
        store = self.root / "x.db"
        store.write_bytes(b"no database, but long enough to have a header of one " * 10)
        self.assertIn("store.path", self.fault(1, "store.backend=sqlite", f"store.path={store}"))
        self.assertEqual(list(self.run_folder.iterdir()), [])


class ReportTests(SupervisorTestCase):
    def test_any_port_answers_for_the_whole_node(self) -> None:
        launched = self.serving(1)
        self.assertEqual(launched.readiness(), {"ready": True, "reasons": [], "workers": [_described("n-1", "ready")]})
        self.assertEqual(json.loads(launched.get("/healthz")[1])["alive"], True)
        self.assertEqual(launched.sample('streampush_workers{state="ready"}'), 1)
        self.assertEqual(launched.sample("streampush_event_streams"), 0)
        self.assertGreater(launched.sample('process_start_time_seconds{worker="1"}'), 0)

    def test_the_log_names_who_wrote_each_line(self) -> None:
        launched = self.serving(1)
        names = {(record["namespace"].startswith("streampush.supervisor"), record["node"]) for record in launched.records}
        self.assertLessEqual({(True, "n"), (False, "n-1")}, names)

    def test_sockets_are_for_their_owner_only(self) -> None:
        self.serving(1)
        (folder,) = self.run_folder.iterdir()
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        self.assertEqual({path.name: path.stat().st_mode & 0o777 for path in folder.iterdir() if path.suffix == ".sock"}, {
            "supervisor.sock": 0o600, "worker-1.sock": 0o600,
        })  # fmt: skip

    def test_while_the_supervisor_hangs_health_is_the_workers_own_and_there_are_no_metrics(self) -> None:
        launched = self.serving(1)
        launched.process.send_signal(signal.SIGSTOP)
        self.addCleanup(launched.process.send_signal, signal.SIGCONT)
        self.assertEqual(launched.readiness(), {"ready": True, "reasons": []})
        self.assertEqual(launched.get("/metrics")[0], 503)


class DescribedTests(unittest.TestCase):
    def test_every_state_is_in_the_description_of_the_api(self) -> None:
        description = json.loads(files("streampush.rest").joinpath("openapi.json").read_bytes())
        named = description["components"]["schemas"]["Worker"]["properties"]["state"]["enum"]
        self.assertEqual(named, [state.value for state in State])


class DeathTests(SupervisorTestCase):
    def test_who_waits_for_a_worker_that_is_killed_is_taken_by_its_successor(self) -> None:
        launched = self.serving(1)
        os.kill(launched.pids["n-1"], signal.SIGSTOP)  # it accepts nothing any more
        waiting = self.connect(launched)
        os.kill(launched.pids["n-1"], signal.SIGKILL)
        died = launched.until_event("has died")
        self.assertEqual((died["death"], died["reason"], died["level"]), ("SIGKILL", "signal", "error"))
        self.handshake(waiting)
        launched.until_ready("n-1")
        self.assertEqual(launched.sample('streampush_worker_restarts_total{reason="signal"}'), 1)

    def test_a_worker_that_hangs_is_killed_and_another_started(self) -> None:
        launched = self.serving(1, "node.worker_timeout=1.5")
        before = launched.pids["n-1"]
        os.kill(before, signal.SIGSTOP)
        waiting = self.connect(launched)
        launched.until_event("gets {signal}", signal="SIGTERM")
        launched.until_event("gets {signal}", signal="SIGKILL")
        self.assertEqual(launched.until_event("has died")["reason"], "hung")
        self.handshake(waiting)
        launched.until_ready("n-1")
        self.assertNotEqual(launched.pids["n-1"], before)
        self.assertEqual(launched.sample('streampush_worker_restarts_total{reason="hung"}'), 1)

    def test_a_worker_that_is_told_to_end_drains_and_another_is_started(self) -> None:
        launched = self.serving(1)
        self.handshake(self.connect(launched)).close()
        os.kill(launched.pids["n-1"], signal.SIGTERM)
        launched.until_event("stopped", node="n-1")
        left = launched.until_event("has left")
        self.assertEqual((left["death"], left["level"]), ("SIGTERM", "info"))
        self.handshake(self.connect(launched))
        self.assertEqual(launched.sample('streampush_worker_restarts_total{reason="left"}'), 1)

    def test_counters_go_on_over_a_death(self) -> None:
        launched = self.serving(1)
        for _ in range(3):
            launched.get("/nothing")
        counted = 'streampush_rest_requests_total{status="404"}'
        self.assertEqual(launched.sample(counted), 3)
        os.kill(launched.pids["n-1"], signal.SIGKILL)
        launched.until_event("has died")
        launched.until_ready("n-1")
        launched.get("/nothing")
        self.assertEqual(launched.sample(counted), 4)


class EndTests(SupervisorTestCase):
    def test_a_stop_drains_the_worker_and_leaves_nothing_behind(self) -> None:
        launched = self.serving(1)
        self.handshake(self.connect(launched))
        launched.process.terminate()
        launched.until_event("stopped", node="n-1")
        launched.until_event("has ended", worker="n-1")
        launched.until_event("stopped", node="n")
        self.assertEqual(launched.process.wait(TIMEOUT), -signal.SIGTERM)
        self.assertEqual(list(self.run_folder.iterdir()), [])

    def test_readiness_is_red_while_the_node_drains(self) -> None:
        launched = self.serving(1, "session.drain_timeout=30")
        self.device(launched)
        launched.process.terminate()
        launched.until_event("draining")
        found = launched.readiness()
        self.assertEqual((found["ready"], found["reasons"]), (False, ["draining: the node is being stopped"]))
        self.assertEqual(found["workers"][0]["state"], "draining")
        launched.process.terminate()
        launched.process.wait(TIMEOUT)

    def test_a_second_signal_hurries(self) -> None:
        launched = self.serving(1, "session.drain_timeout=3000")
        self.device(launched)
        launched.process.terminate()
        launched.until_event("draining")
        launched.process.terminate()
        launched.until_event("stopped", node="n")
        self.assertEqual(launched.process.wait(TIMEOUT), -signal.SIGTERM)

    def test_control_c_drains_as_one_signal_does(self) -> None:
        launched = self.serving(1, "session.drain_timeout=2")
        device = self.device(launched)
        os.killpg(launched.process.pid, signal.SIGINT)  # what a terminal does
        launched.until_event("draining")
        device.settimeout(TIMEOUT)
        self.assertNotEqual(device.recv(1), b"")  # its GoAway: it was not cut
        launched.until_event("stopped", node="n")
        launched.process.wait(TIMEOUT)

    def test_a_stop_before_the_worker_is_up_ends_it(self) -> None:
        launched = self.launch(1)
        launched.until_event("starts as process")
        launched.process.terminate()
        launched.until_event("stopped", node="n")
        launched.process.wait(TIMEOUT)
        self.wait_until_gone(launched.pids["n-1"])

    def test_a_hangup_is_passed_on(self) -> None:
        launched = self.serving(1)
        launched.process.send_signal(signal.SIGHUP)
        launched.until_event("certificates and lists reloaded", node="n-1")

    def test_a_worker_whose_supervisor_is_killed_drains_and_ends(self) -> None:
        launched = self.serving(1)
        self.handshake(self.connect(launched))
        launched.process.kill()
        launched.until_event("the supervisor is gone", node="n-1")
        launched.until_event("stopped", node="n-1")
        self.wait_until_gone(launched.pids["n-1"])
        self.assertEqual(list(self.run_folder.iterdir()), [])

    def test_another_supervisor_can_start_while_the_workers_of_a_killed_one_drain(self) -> None:
        launched = self.serving(1, "session.drain_timeout=3000", "store.backend=memory")
        self.device(launched)
        launched.process.kill()
        launched.until_event("draining")
        again = self.serving(1, "store.backend=memory", f"listen.port={launched.stream_port}", f"rest.port={launched.rest_port}")
        self.handshake(self.connect(again))
        with urllib.request.urlopen(f"http://127.0.0.1:{again.rest_port}/readyz", timeout=TIMEOUT) as answer:
            self.assertEqual(answer.status, 200)
        os.kill(launched.pids["n-1"], signal.SIGKILL)


def _described(name: str, state: str) -> dict[str, object]:
    return {"name": name, "state": state, "reasons": []}
