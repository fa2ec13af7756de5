"""A write-ahead log that ends anywhere, as after a power cut: the commits before are there, and the file is sound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from streampush.protocol.terms import Milestone
from streampush.push.values import FALLBACK, CursorMove, Mark
from streampush.store.sqlite.checking import examine
from tests.store.folders import quick_folder
from tests.store.sqlite_file import NOW_MS, done, draft, everything, fill, opened

CUTS = 20

Commits = list[tuple[int, int, int]]
"""The size of the write-ahead log, the top of the channel and the cursor of the device, after each commit."""


@pytest.fixture
def crashed() -> Iterator[tuple[Path, Commits]]:
    """A file with a write-ahead log as a crash leaves them."""
    with quick_folder() as folder:
        source, path = Path(folder) / "source.db", Path(folder) / "store.db"
        with opened(source) as store:
            fill(store)
            head = done(store.head("news"))
            top, cursor = head.top_offset, done(store.cursors("d"))["news"].offset
            wal = Path(f"{source}-wal")
            commits = [(wal.stat().st_size, top, cursor)]
            for number in range(50):
                done(store.append(draft("news", f"f{number:02}", b"x" * (number % 9) * 100, fallback=b"alert")))
                top += 1
                commits.append((wal.stat().st_size, top, cursor))
                mark = Mark("d", "news", head.epoch, top, top, Milestone.WRITTEN, NOW_MS)
                done(store.record([CursorMove("d", "news", head.epoch, top, 0, 0, NOW_MS)], [mark]))
                cursor = top
                commits.append((wal.stat().st_size, top, cursor))
            path.write_bytes(source.read_bytes())
            Path(f"{path}-wal").write_bytes(wal.read_bytes())
            yield path, commits


@pytest.mark.parametrize("seed", range(CUTS))
def test_a_log_that_ends_anywhere_gives_the_commits_before(crashed: tuple[Path, Commits], seed: int) -> None:
    path, commits = crashed
    random = Random(seed)
    wal = Path(f"{path}-wal")
    log = wal.read_bytes()
    cut = random.randrange(commits[0][0], len(log))
    torn = random.randrange(1, 5000) if seed % 2 else len(log)  # some are as long as they were, with a hole of noise
    wal.write_bytes(log[:cut] + (random.randbytes(torn) + log[cut + torn :] if torn < len(log) else b""))
    _, top, cursor = max(commit for commit in commits if commit[0] <= cut)
    with opened(path) as store:
        assert done(store.head("news")).top_offset == top
        assert done(store.cursors("d"))["news"].offset == cursor
        messages = list(everything(store, "news"))
        assert [one.offset for one in messages] == list(range(1, top + 1))
        works = done(store.outbox_lease(FALLBACK, 100, NOW_MS, 10))  # a message has its work, and no work is without its message
        assert {work.key for work in works} == {one.message_id for one in messages if one.message_id.startswith("f")}
    assert examine(str(path)).faults == ()


def test_a_log_without_its_file_header_gives_the_file_as_it_was(crashed: tuple[Path, Commits]) -> None:
    path, _ = crashed
    Path(f"{path}-wal").write_bytes(b"")
    with opened(path) as store:
        assert done(store.head("news")).top_offset == 0
    assert examine(str(path)).faults == ()
