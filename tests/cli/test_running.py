"""A coroutine as the life of the reactor; each in a process of its own, since a reactor runs only once."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

HEAD = """
import signal
import sys
import click
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from streampush.cli.exits import NoConnection
from streampush.cli.running import run

signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, also when the tests run in the background

@click.command()
def command():
    click.echo(run(work))
"""


def start(work: str) -> subprocess.Popen[str]:
    program = f"{HEAD}\n{work}\ncommand()\n"
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


def test_the_result_comes_back() -> None:
    work = "async def work(reactor):\n    await deferLater(reactor, 0)\n    return 'done'"
    assert finish(start(work)) == (0, "done\n", "")


def test_work_that_ends_at_once_is_fine() -> None:
    assert finish(start("async def work(reactor):\n    return 'done'")) == (0, "done\n", "")


def test_a_failure_is_one_line_and_its_status() -> None:
    work = "async def work(reactor):\n    await deferLater(reactor, 0)\n    raise NoConnection('nobody there')"
    assert finish(start(work)) == (4, "", "Error: nobody there\n")


def test_a_failure_before_there_is_a_coroutine_ends_it_too() -> None:
    work = "def work(reactor):\n    raise NoConnection('nobody there')"
    assert finish(start(work)) == (4, "", "Error: nobody there\n")


def test_ctrl_c_runs_what_cleans_up_and_exits_with_130() -> None:
    work = """
async def work(reactor):
    print("ready", flush=True)
    try:
        await Deferred()
    finally:
        await deferLater(reactor, 0.01)
        print("clean", flush=True)
"""
    process = start(work)
    wait_for(process, "ready")
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "clean\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_what_cleans_up_without_a_traceback(number: signal.Signals) -> None:
    work = """
async def work(reactor):
    print("ready", flush=True)
    try:
        await Deferred()
    finally:
        print("cleaning up", flush=True)
        await Deferred()
"""
    process = start(work)
    wait_for(process, "ready")
    process.send_signal(number)
    wait_for(process, "cleaning up")
    process.send_signal(number)
    assert finish(process) == (130, "", "")


def test_a_signal_between_the_end_of_the_work_and_that_of_the_process_changes_nothing() -> None:
    work = """
import os, signal
async def work(reactor):
    reactor.addSystemEventTrigger("during", "shutdown", lambda: deferLater(reactor, 0.01))
    reactor.addSystemEventTrigger("during", "shutdown", os.kill, os.getpid(), signal.SIGTERM)
    return "done"
"""
    assert finish(start(work)) == (0, "done\n", "")


def test_an_ignored_interrupt_stays_ignored() -> None:
    work = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
async def work(reactor):
    await deferLater(reactor, 0)
    os.kill(os.getpid(), signal.SIGINT)
    await deferLater(reactor, 0.01)
    return "done"
"""
    assert finish(start(work)) == (0, "done\n", "")
