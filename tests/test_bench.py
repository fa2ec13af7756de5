"""Each benchmark runs at a tiny size and prints the lines that docs/performance.md is made of."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.arena import arena
from bench.dialects import LoadError, NaiveDialect, StreampushDialect
from bench.durable import SERIAL
from bench.many import WORKERS
from bench.mosquitto import MqttWire
from bench.recovery import SIMULATOR, SIMULATOR_ERROR
from bench.redis_server import PROGRAM, REDIS
from bench.redis_store import OVER_REDIS, OVER_SYNCED
from bench.report import NAIVE, OURS, Report, percentile, ratios
from bench.servers import NAIVE_SESSIONS
from bench.storage import EMPTY
from bench.table import rows
from bench.workers import FIGURES
from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.codes import Code

ROOT = Path(__file__).parent.parent
KEYS = {"bench", "figure", "subject", "unit", "median", "min", "max", "runs"}
BOTH = {OURS, NAIVE, f"{OURS}/{NAIVE}"}
AT_ONCE = 4
OVER_A_REDIS = ("redis_store", "hop", "workers", "many")
FAIR = f"{OURS}/{NAIVE_SESSIONS}"

CASES: dict[str, tuple[str, dict[str, set[str]]]] = {
    "decoder": (
        "--frames 50 --big 64 --rounds 1",
        {
            "decode": {OURS, NAIVE},
            "decode CPU": {f"{OURS}/{NAIVE}"},
            "decode big frame": {OURS, NAIVE},
            "decode linearity": {f"{OURS} 64 KiB/16 KiB per byte", f"{NAIVE} 64 KiB/16 KiB per byte"},
        },
    ),
    "http2": (
        "--requests 10 --in-flight 5 --rounds 1",
        {"request and answer CPU": {OURS, "h2", f"{OURS}/h2"}},
    ),
    "recovery": (
        "--rate 100 --gap 0.3 --rounds 1",
        {
            "recovery after GOAWAY": {SIMULATOR, SIMULATOR_ERROR},
            "slowest push over a GOAWAY": {SIMULATOR, SIMULATOR_ERROR},
        },
    ),
    "fanout": ("--devices 5 --messages 3 --rounds 1", {"fan-out CPU per delivery": BOTH}),
    "unicast": (
        "--devices 5 --messages 12 --rounds 1",
        {
            "unicast CPU per publish and delivery": BOTH,
            "CPU per publish without a follower": BOTH,
            "unicast CPU per delivery, the rest": {OURS, NAIVE},
        },
    ),
    "handshakes": (
        "--count 8 --rounds 1",
        {
            "connect CPU, full": {*BOTH, NAIVE_SESSIONS, FAIR},
            "connect CPU, resumed": {OURS, NAIVE_SESSIONS, FAIR},
            "connect CPU, resumed to full": {f"{OURS}/full", f"{NAIVE_SESSIONS}/full"},
            "connect CPU, resumed to naive full": {f"{OURS}/{NAIVE}"},
            "handshake CPU, full": {*BOTH, NAIVE_SESSIONS, FAIR},
            "handshake CPU, resumed": {OURS, NAIVE_SESSIONS, FAIR},
            "handshake CPU, resumed to full": {f"{OURS}/full", f"{NAIVE_SESSIONS}/full"},
            "handshake CPU, resumed to naive full": {f"{OURS}/{NAIVE}"},
        },
    ),
    "follow_ups": (
        "--devices 20 --rounds 1",
        {
            "publish to a device CPU": {OURS},
            "publish to a device with its push CPU": {OURS},
            "following up CPU, a device's message": {OURS},
            "following up CPU, a message to a user with one device": {OURS},
            "following up CPU, a topic's follower": {OURS},
        },
    ),
    "memory": ("--connections 5 --rounds 1", {"memory per idle connection": BOTH}),
    "durable": (
        "--connections 2 --messages 8 --rounds 1 --simulate 0",
        {
            **{f"durable publish: {part}": {OURS, SERIAL} for part in ("latency p50", "latency p99")},
            **{f"durable publish: {part}": {OURS, SERIAL, f"{OURS}/{SERIAL}"} for part in ("throughput", "CPU")},
            **{f"store alone, append: {part}": {"max_batch=1000", "max_batch=1"} for part in ("latency p50", "latency p99")},
            **{f"store alone, append: {part}": {"max_batch=1000/max_batch=1"} for part in ("throughput", "CPU")},
        },
    ),
    "busy": (
        "--messages 3 --rounds 1",
        {f"append beside a busy thread, {part}": {OURS, "python", f"{OURS}/python"} for part in ("p50", "p99")},
    ),
    "latency": (
        "--devices 3 --messages 4 --rounds 1",
        {"latency p50": BOTH, "latency p99": BOTH, "latency: messages published": BOTH, "latency: CPU": BOTH},
    ),
    "backlog": (
        "--waiting 300 --devices 3 --messages 4 --rounds 1",
        {
            "backlog read-out": {OURS},
            "backlog read-out: CPU a message": {OURS},
            **{f"latency {part} of others": {"beside the reader/without"} for part in ("p50", "p99")},
            **{f"latency {part} of others without the reader": {OURS} for part in ("p50", "p99")},
            **{f"latency {part} of others beside the reader": {OURS} for part in ("p50", "p99")},
            "memory before the read-out": {OURS},
            "memory, the most during the read-out": {OURS},
            "memory after the read-out": {OURS},
        },
    ),
    "followers": (
        "--followers 9 --connected 3 --messages 2 --alone 4 --rounds 1",
        {
            "CPU of a publish to a topic": {"9 followers", "3 followers", "9 followers/3 followers"},
            "bytes stored by a publish to a topic": {"9 followers", "3 followers"},
        },
    ),
    "storage": (
        "--mebibytes 1 --channels 9 --visits 5 --rounds 1",
        {
            "start until ready": {"1 MiB", EMPTY, f"1 MiB/{EMPTY}"},
            "memory at the start": {"9 channels", EMPTY},
            "memory after publishing and reading": {"9 channels", EMPTY, f"9 channels/{EMPTY}"},
            "CPU of publishing and reading": {"9 channels", EMPTY},
        },
    ),
    "redis_store": (
        "--connections 2 --messages 8 --devices 2 --paced 3 --rounds 1",
        {
            **{
                f"publish: {part}": {OURS, OVER_REDIS, OVER_SYNCED, f"{OVER_REDIS}/{OURS}", f"{OVER_SYNCED}/{OURS}"}
                for part in ("throughput", "CPU of the node")
            },
            **{f"publish: latency {part}": {OURS, OVER_REDIS, OVER_SYNCED} for part in ("p50", "p99")},
            "publish: CPU of redis-server": {OVER_REDIS, OVER_SYNCED},
            **{f"publish to device: latency {part}": {OURS, OVER_REDIS, OVER_SYNCED} for part in ("p50", "p99")},
        },
    ),
    "hop": (
        "--messages 2 --published 50 --others 1 --rounds 1",
        {
            **{
                f"publish to device: latency {part}": {"same node", "other node", "other node/same node"} for part in ("p50", "p99")
            },
            **{f"bytes {way} Redis a publish": {"0 other nodes", "1 other nodes"} for way in ("to", "from")},
        },
    ),
    "workers": (
        "--devices 4 --messages 20 --rounds 1",
        {figure: {"1 worker", "2 workers", "2 workers/1 worker"} for figure in FIGURES},
    ),
    "many": (
        "--connections 8 --workers 2 --seconds 2 --alone 1 --interval 1 --patience 20",
        {
            "connecting all": {WORKERS},
            "heartbeats answered": {WORKERS},
            "connecting, CPU of workers a connection": {WORKERS},
            "memory per idle connection": {WORKERS},
            "memory per device": {REDIS},
            "CPU without connections": {WORKERS, REDIS},
            "idle CPU per 1000 connections": {WORKERS, REDIS},
            "drain of a worker: devices told when to come": {WORKERS},
            "drain of a worker: devices cut without a word": {WORKERS},
            "drain of a worker: latest time that was given": {WORKERS},
            "drain of a worker: devices not back in the end": {WORKERS},
            "drain of a worker: until all are back": {WORKERS},
        },
    ),
    "idle": (
        "--connections 5 --seconds 2 --alone 1 --interval 1",
        {"CPU without connections": {OURS, NAIVE}, "idle CPU per 1000 connections": {OURS, NAIVE}},
    ),
}


def lines_of(bench: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", f"bench.{bench}", *CASES[bench][0].split()]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[list[dict[str, Any]]]]]:
    """The benchmarks of the chosen tests, some at a time: they wait more than they work."""
    chosen = [
        item.callspec.params["bench"]
        for item in request.session.items
        if getattr(item, "module", None) is request.module and "bench" in getattr(item, "fixturenames", ())
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {bench: pool.submit(lines_of, bench) for bench in chosen}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("bench", CASES)
def test_benchmark_prints_its_figures_for_each_subject(bench: str, running: dict[str, Future[list[dict[str, Any]]]]) -> None:
    if bench in OVER_A_REDIS and PROGRAM is None:
        pytest.skip("redis-server is not installed here (.ci/run installs it)")
    expected = CASES[bench][1]
    found: dict[str, set[str]] = {}
    for line in running[bench].result():
        assert line.keys() >= KEYS
        assert line["bench"] == bench
        assert line["min"] <= line["median"] <= line["max"]
        found.setdefault(line["figure"], set()).add(line["subject"])
    for figure, subjects in expected.items():
        assert subjects <= found[figure], figure
    assert found.keys() == expected.keys()


def test_result_line_holds_median_spread_and_conditions() -> None:
    output = io.StringIO()
    Report("some", output).result("speed", OURS, "us", [3.0, 1.0, 2.0], devices=7)
    line = {"bench": "some", "figure": "speed", "subject": OURS, "unit": "us", "median": 2.0, "min": 1.0, "max": 3.0}
    assert json.loads(output.getvalue()) == {**line, "runs": 3, "devices": 7}


def test_ratios_pair_samples_of_the_same_round() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_percentile_is_a_sample_that_so_many_do_not_exceed() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.0
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.99) == 4.0


def test_mqtt_acknowledgements_are_counted_and_a_broken_one_waits_for_its_rest() -> None:
    assert MqttWire().take(bytes.fromhex("20020000 40020001 4002")) == (2, bytes.fromhex("4002"), b"")


def test_refusal_of_mosquitto_fails_the_benchmark() -> None:
    with pytest.raises(LoadError):
        MqttWire().take(bytes.fromhex("20020005"))


@pytest.mark.parametrize("refusal", [m.Error.of(Code.FORBIDDEN), m.GoAway(Code.DRAINING), m.Subscribed("t", code=Code.FORBIDDEN)])
def test_refusal_of_streampush_fails_the_benchmark(refusal: m.Message) -> None:
    with pytest.raises(LoadError):
        StreampushDialect().meaning(codec.encode(refusal))


def test_unknown_answer_of_the_naive_server_fails_the_benchmark() -> None:
    with pytest.raises(LoadError):
        NaiveDialect().meaning(b"?")


def test_devices_acknowledge_whatever_an_earlier_phase_left_over() -> None:
    with arena(1) as ring:
        load = ring.enter(OURS).load
        load.call("connect", first=0, count=1, subscribe=True)
        load.call("connect_publisher")
        assert load.call("broadcast", messages=5, burst=1, ack_every=64, payload=b"x") == 5
        assert load.call("broadcast", messages=600, burst=100, ack_every=1, payload=b"x") == 600  # the window is 256


def test_table_has_a_row_for_each_result_with_its_conditions() -> None:
    output = io.StringIO()
    Report("some", output).result("speed", OURS, "us", [2.0], in_flight=7)
    _, row = rows(["noise", output.getvalue()])
    assert row == f"| speed | in flight 7 | {OURS} | 2 us | 2 | 2 | 1 |"


def test_lost_server_fails_the_benchmark() -> None:
    with arena(1) as ring:
        contender = ring.enter(NAIVE)
        contender.load.call("connect", first=0, count=1, subscribe=False)
        contender.load.call("connect_publisher")
        contender.server.stop()
        with pytest.raises(LoadError):
            contender.load.call("broadcast", messages=1, burst=1, ack_every=1, payload=b"x")
