"""How long pushes to Apple rest when the server takes their connection away, in real time: TLS over loopback.

Pushes go out at a steady rate, and every some seconds the server sends GOAWAY. Two figures for each: from the GOAWAY until the
first push that was made behind it is delivered, and how long the slowest push took of those that it can have held up. Servers: the
simulated Apple (`streampush apns-sim`), whose GOAWAY is orderly, or has an error and ends the connection; and Node's http2, if
there is Node. The client has one core, the server the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import LoopingCall

from bench.apns import Files
from bench.apns_client import KEY_ID, TEAM_ID, make_client
from bench.report import Report
from bench.servers import Cores
from streampush.apns.client import ApnsClient
from streampush.apns.client_figures import named
from streampush.apns.outcome import Outcome
from streampush.apns.payload import Alert, alert_payload
from streampush.apns.ports import NoMetrics
from streampush.apns.push import ApnsPush
from streampush.clocks import run_timers_steadily

reactor: Any = any_reactor

SIMULATOR = "simulated Apple"
SIMULATOR_ERROR = "simulated Apple, with an error"
NODE = "Node"
NODE_SERVER = Path(__file__).parent.parent / "tests/apns/peers/apple.js"
HELD_UP = 0.5
"""Seconds behind a GOAWAY in which a push that is made counts as held up by it."""
TICK = 0.001


@dataclass(frozen=True, slots=True)
class Load:
    """`rate`: pushes a second. `gap`: seconds between two GOAWAYs. `rounds`: GOAWAYs. `delay`: seconds to an answer."""

    rate: int
    gap: float
    rounds: int
    delay: float

    @property
    def every(self) -> int:
        """Requests from one GOAWAY to the next."""
        return max(1, int(self.rate * self.gap))


@dataclass(slots=True)
class Watch(NoMetrics):
    """When what happened, in seconds of the reactor's clock. `pushes`: begin and end of those that were delivered."""

    gone_at: list[float] = field(default_factory=list)
    pushes: list[tuple[float, float]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def gone_away(self, code: str) -> None:
        self.gone_at.append(reactor.seconds())

    def ended(self, outcome: Outcome, began: float) -> None:
        kind, _ = named(outcome)
        if kind == "delivered":
            self.pushes.append((began, reactor.seconds()))
        else:
            self.others[kind] += 1

    def recoveries(self, rounds: int) -> list[float]:
        """Milliseconds from each GOAWAY to the first delivery of a push that was made behind it."""
        return [min(ended - gone for began, ended in self.pushes if began >= gone) * 1e3 for gone in self.gone_at[:rounds]]

    def slowest(self, rounds: int) -> list[float]:
        """Milliseconds of the slowest push at each GOAWAY."""
        return [max(self._held_up(gone)) * 1e3 for gone in self.gone_at[:rounds]]

    def _held_up(self, gone: float) -> Iterator[float]:
        return (ended - began for began, ended in self.pushes if ended >= gone and began <= gone + HELD_UP)


@contextmanager
def serving(subject: str, load: Load, files: Files, folder: Path, core: int) -> Iterator[int]:
    """A server as a process of its own; gives its port."""
    if subject == NODE:
        orders = {"goAwayEvery": load.every, "delayMs": load.delay * 1e3}
        command = [str(which("node")), str(NODE_SERVER), str(files.certificate), str(files.key), json.dumps(orders)]
    else:
        go_away = {"kind": "go-away", "every": load.every, "code": 2 if subject == SIMULATOR_ERROR else 0}
        ordered = folder / "orders.json"
        ordered.write_text(json.dumps({"order": [go_away, {"kind": "delay", "mean": load.delay}]}))
        program = str(Path(sys.executable).with_name("streampush"))
        key = ["--key", str(files.p8), "--key-id", KEY_ID, "--team-id", TEAM_ID]
        command = [program, "apns-sim", "--port", "0", "--mint", str(folder), *key, "--orders", str(ordered), "--quiet"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, {core})
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().partition(",")[0].rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


async def measure(load: Load, port: int, files: Files) -> Watch:
    """Pushes until all GOAWAYs were seen and what they held up has ended."""
    watch = Watch()
    client, pool = make_client(reactor, port, files.ca.read_bytes(), files.p8.read_bytes(), metrics=watch)
    await Offering(client, load, watch).done
    client.stop()
    await pool.stop()
    return watch


class Offering:
    """Makes pushes at the rate. `done` fires when all have ended."""

    def __init__(self, client: ApnsClient, load: Load, watch: Watch) -> None:
        self.done: Deferred[None] = Deferred()
        self._client = client
        self._load = load
        self._watch = watch
        self._began = reactor.seconds()
        self._offered = 0
        self._under_way = 0
        self._over = False
        self._clock = LoopingCall(self._offer)
        self._clock.start(TICK)

    def _offer(self) -> None:
        now, gone_at, pushes = reactor.seconds(), self._watch.gone_at, self._watch.pushes
        if len(gone_at) >= self._load.rounds and pushes and pushes[-1][0] > gone_at[self._load.rounds - 1] + HELD_UP:
            self._over = True
            self._clock.stop()
            self._look()
            return
        while self._offered < (now - self._began) * self._load.rate:
            self._offered += 1
            payload = alert_payload(Alert(title="Order 4711", body=f"Your parcel {self._offered} is there."))
            push = ApnsPush(f"{self._offered:064x}", payload, "com.example.app")
            self._under_way += 1
            self._client.push(push, deadline=now + 30.0).addCallback(self._ended, reactor.seconds())

    def _ended(self, outcome: Outcome, began: float) -> None:
        self._under_way -= 1
        self._watch.ended(outcome, began)
        self._look()

    def _look(self) -> None:
        if self._over and not self._under_way and not self.done.called:
            self.done.callback(None)


async def run(load: Load, subjects: list[str], report: Report) -> None:
    cores = Cores.of_this_process()
    os.sched_setaffinity(0, {cores.clients})
    for subject in subjects:
        with tempfile.TemporaryDirectory() as name:
            files = Files(Path(name))
            with serving(subject, load, files, Path(name), cores.server) as port:
                watch = await measure(load, port, files)
        facts = {"per_second": load.rate, "answer_ms": load.delay * 1e3, "pushes": len(watch.pushes), **watch.others}
        report.result("recovery after GOAWAY", subject, "ms", watch.recoveries(load.rounds), **facts)
        report.result("slowest push over a GOAWAY", subject, "ms", watch.slowest(load.rounds), **facts)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description=__doc__)
    parser.add_argument("--rate", type=int, default=500, help="pushes a second")
    parser.add_argument("--gap", type=float, default=2.0, help="seconds from one GOAWAY to the next")
    parser.add_argument("--rounds", type=int, default=10, help="GOAWAYs")
    parser.add_argument("--delay-ms", type=float, default=20.0, help="until an answer")
    options = parser.parse_args(arguments)
    run_timers_steadily(reactor)
    load = Load(options.rate, options.gap, options.rounds, options.delay_ms / 1e3)
    subjects = [SIMULATOR, SIMULATOR_ERROR, *([NODE] if which("node") else [])]
    failures: list[Any] = []

    def begin() -> None:
        ran = ensureDeferred(run(load, subjects, Report("recovery")))
        ran.addErrback(failures.append).addCallback(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    for failure in failures:
        failure.raiseException()


if __name__ == "__main__":
    main()
