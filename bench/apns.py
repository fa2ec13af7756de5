"""Pushes to Apple: CPU, throughput and latency of `ApnsClient.push` and of aioapns, against a server that only answers.

Client on one core, server on the other, TLS over loopback. aioapns comes with the extra `bench`; without it ours runs alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.report import OURS, Report, ratios
from streampush.cli.pki import CertificateAuthority

AIOAPNS = "aioapns"
CLIENT_CORE, SERVER_CORE = 0, 1
DELAY_MS = 20.0
ONE_BY_ONE = 2000

Facts = dict[str, float]


class Files:
    """Certificates and a signing key of one run, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key, self.ca, self.p8 = (folder / name for name in ("server.crt", "server.key", "ca.crt", "key.p8"))
        authority = CertificateAuthority.create("bench CA")
        authority.issue_server(["localhost", "127.0.0.1"]).write(self.certificate, self.key)
        self.ca.write_bytes(authority.issued.certificate_pem)
        private = ec.generate_private_key(ec.SECP256R1())
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        self.p8.write_bytes(private.private_bytes(pem, pkcs8, serialization.NoEncryption()))

    @contextmanager
    def server(self, *more: str) -> Iterator[int]:
        """A server; gives its port."""
        command = [sys.executable, "-m", "bench.apple", "--certificate", str(self.certificate), "--key", str(self.key)]
        process = subprocess.Popen([*command, "--core", str(SERVER_CORE), *more], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()
            process.wait()

    def run(self, subject: str, mode: str, number: int, delay_ms: float = 0.0) -> Facts:
        """One run of a client in a process of its own, against a server of its own."""
        more = ["--delay-ms", str(delay_ms)] + (["--echo"] if subject == AIOAPNS else [])
        with self.server(*more) as port:
            arguments = [subject, str(port), str(self.ca), str(self.p8), mode, str(number), str(CLIENT_CORE)]
            command = [sys.executable, "-m", "bench.pushing", *arguments]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
            facts: Facts = json.loads(done.stdout)
            return facts


def in_flight(
    report: Report, files: Files, subjects: tuple[str, ...], pushes: int, rounds: int, mode: str = "flight", what: str = "push"
) -> None:
    runs: dict[str, list[Facts]] = {subject: [] for subject in subjects}
    for _ in range(rounds):
        for subject in subjects:
            runs[subject].append(files.run(subject, mode, pushes if subject == OURS else max(1000, pushes // 20)))
    for subject, facts in runs.items():
        shown = {"in_flight": 1000, "failed": max(each["other"] + each["not_sent"] for each in facts)}
        report.result(f"{what} CPU", subject, "us", [each["cpu_us"] for each in facts], **shown)
        report.result(f"{what}, pushes", subject, "pushes/s", [each["per_second"] for each in facts], **shown)
    if AIOAPNS in runs:
        theirs, ours = ([each["cpu_us"] for each in runs[subject]] for subject in (AIOAPNS, OURS))
        report.ratio(f"{what} CPU", AIOAPNS, OURS, ratios(theirs, ours))


def latencies(report: Report, files: Files, subject: str, mode: str, number: int, delay_ms: float, figure: str) -> None:
    facts = files.run(subject, mode, number, delay_ms)
    shown = {"answer_ms": delay_ms, "failed": facts["other"] + facts["not_sent"], "cpu_us": round(facts["cpu_us"], 1)}
    report.result(f"{figure}, p50", subject, "ms", [facts["p50_ms"]], **shown)
    report.result(f"{figure}, p99", subject, "ms", [facts["p99_ms"]], **shown)


def flood(report: Report, files: Files, seconds: int) -> None:
    facts = files.run(OURS, "flood", seconds)
    shown = {"told_at_once": facts["not_sent"], "failed": facts["other"], "rss_mib": round(facts["rss_mib"])}
    report.result("pushes when more is offered than can be sent", OURS, "pushes/s", [facts["per_second"]], **shown)
    report.result("push CPU when more is offered than can be sent, what was turned away included", OURS, "us", [facts["cpu_us"]])
    report.result("p50 when more is offered than can be sent", OURS, "ms", [facts["p50_ms"]])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.apns", description=__doc__)
    parser.add_argument("--pushes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of the runs at a steady rate, and of the flood")
    parser.add_argument("--only", choices=(OURS, AIOAPNS))
    options = parser.parse_args(arguments)
    report = Report("apns")
    both = (OURS, AIOAPNS) if importlib.util.find_spec("aioapns") is not None else (OURS,)
    subjects = (options.only,) if options.only else both
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder))
        in_flight(report, files, subjects, options.pushes, options.rounds)
        in_flight(report, files, subjects, options.pushes, options.rounds, "kept", "push with expiration and collapse id")
        for subject in subjects:
            latencies(report, files, subject, "one", ONE_BY_ONE, 0.0, "one push at a time")
            latencies(report, files, subject, "paced:1000", 1000 * options.seconds, DELAY_MS, "1000 pushes a second")
        if OURS in subjects:
            latencies(report, files, OURS, "paced:20000", 20_000 * options.seconds, DELAY_MS, "20000 pushes a second")
            flood(report, files, options.seconds)


if __name__ == "__main__":
    main()
