"""A process that is killed at any moment: what it has acknowledged is there, and the file is sound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

from streampush.store.sqlite.checking import examine
from tests.store.folders import quick_folder
from tests.store.sqlite_file import everything, opened

ROUNDS = 8

WRITER = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from streampush.config import StoreConfig
from streampush.store.sqlite import SqliteStore
from tests.store.sqlite_file import NOW_MS, draft

path, first = sys.argv[1], int(sys.argv[2])
store = SqliteStore(path, StoreConfig(), lambda: NOW_MS, lambda: "epoch", reactor)
numbers = iter(range(first, first + 1_000_000))

async def publish():
    for number in numbers:
        accepted = await store.append(draft(f"news/{number % 7}", f"m{number}", b"%d" % number))
        sys.stdout.write(f"{number} {accepted.channel} {accepted.offset}\\n")

def flush():
    sys.stdout.flush()
    reactor.callLater(0.001, flush)

def begin():
    store.open()
    for _ in range(64):
        Deferred.fromCoroutine(publish())
    flush()

reactor.callWhenRunning(begin)
reactor.run()
"""


def test_what_was_acknowledged_before_a_kill_is_there() -> None:
    random = Random(1)
    with quick_folder() as folder:
        path = Path(folder) / "store.db"
        acknowledged: dict[tuple[str, int], str] = {}
        for number in range(ROUNDS):
            first = number * 1_000_000
            with subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first)], stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                lines = [child.stdout.readline() for _ in range(random.randrange(1, 400))]
                child.kill()
                lines += child.stdout.read().splitlines(keepends=True)
            for line in lines:
                if line.endswith(b"\n"):
                    message, channel, offset = line.decode().split()
                    assert (channel, int(offset)) not in acknowledged, "an offset was given twice"
                    acknowledged[channel, int(offset)] = f"m{message}"
        assert examine(str(path)).faults == ()
        assert len(acknowledged) > ROUNDS
        with opened(path) as store:
            found = {
                (one.channel, one.offset): one.message_id
                for channel in (f"news/{number}" for number in range(7))
                for one in everything(store, channel)
            }
        assert {key: found.get(key) for key in acknowledged} == acknowledged
