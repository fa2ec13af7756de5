"""Several workers over Redis in one run: `make demo-cluster`.

Starts a real Redis with a replica, which stores each command on disk before it answers, and the real server with three workers;
connects devices over mutual TLS and publishes at all of them, over REST and over the framed protocol. Meanwhile it kills the worker
that has most devices, and then Redis, which is started again with its append-only file. Ends with the counts and "nothing lost",
when every message that was acknowledged has arrived at each of its devices; status 1 if one is missing or came twice.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from demo.api import RestApi
from demo.ledger import Ledger
from demo.processes import Failed, Record, Story, running, server_command
from demo.redis import PROGRAM, RedisServer, start_pair

ROOT = Path("var/demo-cluster")
TOPIC = "news/today"
WORKERS = 3
DEVICES = {f"phone-{number}": f"user-{number // 2}" for number in range(12)}
BACKEND = "backend"
SETTLING = 60.0
"""Seconds for what was published last to arrive."""


def say(text: str) -> None:
    print(text, flush=True)


class ClusterDemo:
    """The steps of the run, in their order."""

    def __init__(self) -> None:
        self._follows = {name: frozenset({f"device:{name}", f"user:{user}", TOPIC}) for name, user in DEVICES.items()}
        self._server: Story
        self._fleet: Story
        self._backend: Story
        self._api: RestApi

    def mint(self) -> None:
        """A new directory: a CA, certificates for server, devices and a publisher, a REST key."""
        shutil.rmtree(ROOT, ignore_errors=True)
        command = [str(Path(sys.executable).with_name("streampush")), "init", str(ROOT), "--publisher", BACKEND]
        for device, user in DEVICES.items():
            command += ["--device", f"{device}:{user}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"streampush init: {done.stdout}{done.stderr}")

    def story(self, master: RedisServer) -> int:
        """All of it, once Redis is there; gives the exit status."""
        settings = ("store.backend=redis", f"store.url=redis://127.0.0.1:{master.port}", "store.replicas=1", "node.name=node")
        self._server = Story("server", server_command(ROOT, "--workers", str(WORKERS), *_sets(settings)), stays=True)
        with running(self._server):
            ports = self._await_workers()
            self._fleet = _started("demo.fleet", str(ROOT), str(ports["stream_port"]), TOPIC, *DEVICES)
            with running(self._fleet):
                self._fleet.wait("all devices", lambda record: record["event"] == "ready")
                self._tell_where()
                channels = sorted(frozenset[str]().union(*self._follows.values()))
                addresses = str(ports["stream_port"]), str(ports["rest_port"])
                self._backend = _started("demo.steady", str(ROOT), *addresses, BACKEND, *channels)
                with running(self._backend):
                    self._under_load(master)
                return self._count()

    def _await_workers(self) -> Record:
        ports = self._server.wait("its ports", lambda record: "stream_port" in record)
        for number in range(1, WORKERS + 1):
            self._await_worker(f"node-{number}", 1)
        self._api = RestApi(f"127.0.0.1:{ports['rest_port']}", ROOT / "secrets" / "rest.key")
        self._api.await_ready()
        say(f"server    {WORKERS} workers are ready behind port {ports['stream_port']} (mutual TLS), REST on {ports['rest_port']}")
        return ports

    def _await_worker(self, name: str, times: int) -> None:
        """It has become ready so many times."""

        def met(records: list[Record]) -> Record | None:
            ready = [record for record in records if record.get("worker") == name and record.get("state") == "ready"]
            return ready[times - 1] if len(ready) >= times else None

        self._server.wait_all(f"worker {name}", met)

    def _nodes(self) -> dict[str, str]:
        """Where each device was welcomed last."""
        return {record["device"]: record["node"] for record in self._fleet.events("connected")}

    def _tell_where(self) -> None:
        counts = Counter(self._nodes().values())
        spread = ", ".join(f"{counts[f'node-{number}']} at node-{number}" for number in range(1, WORKERS + 1))
        say(f"devices   {len(DEVICES)} are connected: {spread}")

    # --------------------------------------------------------------------------------------------------------------- faults

    def _under_load(self, master: RedisServer) -> None:
        self._backend.wait("a greeting", lambda record: record["event"] == "ready")
        self._published(60)
        so_far = len(self._backend.events("published"))
        say(f"publish   {so_far} messages acknowledged, {self._durability()}; it goes on all the time")
        self._kill_worker()
        self._published(60)
        self._kill_redis(master)
        self._published(60)
        self._backend.say("enough")
        self._backend.wait("the last acknowledgements", lambda record: record["event"] == "finished")

    def _durability(self) -> str:
        return ", ".join(sorted({record["durability"] for record in self._backend.events("published")}))

    def _published(self, more: int) -> None:
        """So many more messages are acknowledged than now."""
        wanted = len(self._backend.events("published")) + more

        def met(records: list[Record]) -> Record | None:
            return {} if sum(record["event"] == "published" for record in records) >= wanted else None

        self._backend.wait_all(f"{more} more acknowledgements", met)

    def _kill_worker(self) -> None:
        (name, devices), *_ = Counter(self._nodes().values()).most_common(1)
        process = self._server.wait("its process", lambda record: record.get("worker") == name and "pid" in record)
        before = len(self._fleet.events("connected"))
        channels = len(self._follows["phone-0"])
        os.kill(process["pid"], signal.SIGKILL)
        say(f"SIGKILL   worker {name} (process {process['pid']}) with {devices} devices")
        self._await_worker(name, 2)

        def back(records: list[Record]) -> Record | None:
            again = [record for record in records if record["event"] == "connected"][before:]
            return {} if sum(record["recovered"] == channels for record in again) >= devices else None

        self._fleet.wait_all("the return of its devices", back)
        say(f"back      {name} was started again, its {devices} devices are back, each proven without loss on {channels} channels")

    def _kill_redis(self, master: RedisServer) -> None:
        acknowledged = len(self._backend.events("published"))
        master.stop()
        say(f"SIGKILL   Redis, behind {acknowledged} acknowledged messages")
        time.sleep(2)  # nobody can be asked while it is away: publishers wait, devices stay connected
        connected = len(DEVICES) - len(self._gone())
        say(f"away      {connected} of {len(DEVICES)} devices are connected all the same; publishers repeat what has no answer")
        master.start()
        self._published(1)
        self._api.await_ready()
        say("back      Redis was started again with its append-only file, and publishers have their answers")

    def _gone(self) -> set[str]:
        last = {
            record["device"]: record["event"] for record in self._fleet.records if record["event"] in ("connected", "disconnected")
        }
        return {device for device, event in last.items() if event == "disconnected"}

    # ------------------------------------------------------------------------------------------------------------- reckoning

    def _count(self) -> int:
        """The last line; 0 if everything came once."""
        ledger = Ledger(self._follows)
        published = self._backend.events("published")
        for record in published:
            ledger.expect(record["channel"], record["text"])
        due = sum(ledger.due(device) for device in DEVICES)
        self._settle(due)
        got = {
            device: [(r["channel"], r["text"]) for r in self._fleet.events("message") if r["device"] == device]
            for device in DEVICES
        }
        wrong, counts, status = ledger.reckon(got)
        lost = self._fleet.events("lost")
        for line in (
            *wrong,
            *(f"LOST      {record['device']} was told of a loss on {record['channel']}: {record['reason']}" for record in lost),
        ):
            say(line)
        status = status or int(bool(lost))
        ways = Counter(record["way"] for record in published)
        again = sum(record["tries"] - 1 for record in published)
        cut = len(self._fleet.events("disconnected"))
        said = f"{ways['rest']} published over REST, {ways['framed']} over frames, {again} tries repeated under their keys"
        faults = f"1 worker and 1 Redis killed, {cut} connections lost"
        say(f"{'SOMETHING WAS LOST' if status else 'nothing lost'}: {counts}; {said}; {faults}")
        return status

    def _settle(self, due: int) -> None:
        """Everything that is due has arrived, or nothing does any more."""
        deadline = time.monotonic() + SETTLING
        while len(self._fleet.events("message")) < due and time.monotonic() < deadline:
            time.sleep(0.1)


def _sets(settings: tuple[str, ...]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _started(module: str, *arguments: str) -> Story:
    return Story(module.removeprefix("demo."), [sys.executable, "-m", module, *arguments])


def main() -> int:
    if PROGRAM is None:
        say("skipped   redis-server is not installed here: install the package redis-server, and run this again")
        return 0
    demo = ClusterDemo()
    try:
        demo.mint()
        master, replica = start_pair(ROOT / "redis")
        try:
            say(f"Redis     on port {master.port}, with each command on disk before its answer, and a replica on {replica.port}")
            return demo.story(master)
        finally:
            replica.stop()
            master.stop()
    except (Failed, OSError) as failed:
        say(f"FAILED    {failed}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
