"""Files of every older version of the schema are brought to ours with what is in them, each step wholly or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from streampush.config import StoreConfig
from streampush.push.values import (
    FALLBACK,
    CursorMove,
    DeviceRecord,
    Draft,
    Idempotency,
    PushOutcome,
    PushRecord,
    PushResult,
    PushToken,
    Want,
)
from streampush.store.sqlite import FileFault
from streampush.store.sqlite.checking import examine
from streampush.store.sqlite.file import APPLICATION_ID, SCHEMA_VERSION, schema_steps
from tests.store.folders import quick_folder
from tests.store.sqlite_file import NOW_MS, change, done, draft, opened

FIRST_VERSION = f"""
INSERT INTO store (id, epoch, created_at, channels, publications, bytes, devices, moves) VALUES (1, 'old-epoch', 1, 2, 3, 21, 1, 4);
INSERT INTO channels VALUES (1, 'news', 3, 1, 'm1', 14, 0, 0, 0, {NOW_MS});
INSERT INTO channels VALUES (2, 'device:d', 1, 0, '', 7, 1, 1, 0, {NOW_MS});
INSERT INTO entries VALUES ((1 << 39) + 2, 'm2', {NOW_MS}, 0, 0, 2, 0, 7, 7, 0, 0, 0, '', '', '', '', '', CAST('payload' AS BLOB));
INSERT INTO entries VALUES ((1 << 39) + 3, 'm3', {NOW_MS}, 0, 0, 2, 0, 7, 7, 0, 0, 0, '', '', '', '', '', CAST('payload' AS BLOB));
INSERT INTO entries VALUES
    ((2 << 39) + 1, 'd1', {NOW_MS}, {NOW_MS} + 60000, 0, 3, 0, 7, 7, 0, 0, 0, '', '', '', '', '', CAST('payload' AS BLOB));
INSERT INTO devices VALUES ('d', 'u', 1, 2, NULL, '', 0, '', NULL, 0, '', 0);
INSERT INTO cursors VALUES ('d', 'news', 'old-epoch', 2, 0, 0, 4);
"""
"""What a store of the first version held: its columns are those of 001_logs.sql, which never change again."""


@pytest.fixture(params=range(1, SCHEMA_VERSION + 1))
def path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file of each version, with the data of the first."""
    with quick_folder() as folder:
        path = Path(folder) / "store.db"
        write(path, request.param)
        yield path


def write(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        for number, statements in schema_steps()[:version]:
            db.executescript(statements)
            if number == 1:
                db.executescript(FIRST_VERSION)
        db.execute(f"PRAGMA user_version = {version}")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def test_what_was_in_an_old_file_is_there_after_the_upgrade(path: Path) -> None:
    with opened(path) as store:
        page = done(store.read("news", 0, 10, 1000))
        assert [(one.offset, one.message_id, one.payload) for one in page.publications] == [
            (2, "m2", b"payload"),
            (3, "m3", b"payload"),
        ]
        assert (page.head.epoch, page.head.top_offset, page.head.floor_offset) == ("old-epoch", 3, 1)
        (survey,) = done(store.survey("d", [Want("news", (1,))]))
        assert survey.cursor.offset == 2
        assert survey.spots[1].message_id == "m1"
        assert done(store.device("d")).user_id == "u"


def test_idempotency_keys_of_an_old_file_are_counted() -> None:
    with quick_folder() as folder:
        path = Path(folder) / "store.db"
        write(path, 3)
        with closing(sqlite3.connect(path)) as db:
            db.execute("INSERT INTO scopes (id, name, keys) VALUES (1, 'publisher:p', 3)")
            for key in ("a", "b", "c"):
                row = (key, NOW_MS + 1000)
                db.execute("INSERT INTO idempotency VALUES (NULL, 1, ?, x'31', ?, 'm1', 'news', 1, 'old-epoch', 0, 0)", row)
            db.commit()
        with opened(path, StoreConfig(max_idempotency_keys_total=3)) as store:
            key = Idempotency("publisher:q", "d", b"1", NOW_MS + 1000)
            done(store.append(draft("news", "keyed", idempotency=key)))
            known = [done(store.first_answer(Idempotency("publisher:p", key, b"1", NOW_MS + 1000))) for key in ("a", "b", "c")]
            assert [answer is not None for answer in known] == [False, True, True]
        assert examine(str(path)).faults == ()


def test_what_waited_in_an_old_file_goes_out_without_a_fallback() -> None:
    with quick_folder() as folder:
        path = Path(folder) / "store.db"
        write(path, 4)
        row = f"1, {NOW_MS}, 'later', 'news', {NOW_MS}, 0, 2, 0, 7, 0, '', '', '', '', CAST('payload' AS BLOB)"
        change(path, f"INSERT INTO scheduled VALUES ({row})")
        change(path, "UPDATE store SET scheduled = 1, bytes = bytes + 7")
        with opened(path) as store:
            assert [one.publication.message_id for one in done(store.fire_due(NOW_MS, 10))] == ["later"]
            assert done(store.outbox_next_ms(FALLBACK)) is None
        assert examine(str(path)).faults == ()


def test_a_push_token_that_two_devices_of_an_old_file_had_stays_with_the_one_seen_last() -> None:
    with quick_folder() as folder:
        path = Path(folder) / "store.db"
        write(path, 4)
        for device, seen, token in (("old", 1, "01"), ("new", 9, "01"), ("other", 1, "02")):
            row = f"'{device}', '', 1, {seen}, x'{token}', 'org.example', 1, '', NULL, 0, '', 0"
            change(path, f"INSERT INTO devices VALUES ({row})")
        change(path, "UPDATE store SET devices = devices + 3")
        with opened(path) as store:
            assert done(store.device("old")).push_token is None
            assert [done(store.device(name)).push_token.token for name in ("new", "other")] == [b"\x01", b"\x02"]
        assert examine(str(path)).faults == ()


def test_an_upgraded_file_is_sound_and_of_our_version(path: Path) -> None:
    with opened(path):
        pass
    found = examine(str(path))
    assert (found.version, found.faults) == (SCHEMA_VERSION, ())


def test_an_upgraded_file_takes_everything_that_is_new(path: Path) -> None:
    with opened(path) as store:
        key = Idempotency("p", "key", b"1", NOW_MS + 1000)
        assert done(store.append(draft("news", "keyed", idempotency=key))).appended.publication.offset == 4
        assert done(store.append(draft("news", "again", idempotency=key))).duplicate
        done(store.append(draft("news", "collapsed", collapse_key="k", version=2)))
        assert done(store.append(draft("news", "older", collapse_key="k", version=1))).superseded
        done(store.append(draft("news", "later", deliver_at_ms=NOW_MS + 1, fallback=b"alert")))
        assert len(done(store.fire_due(NOW_MS + 1, 10))) == 1
        assert [work.body for work in done(store.outbox_lease(FALLBACK, 10, NOW_MS + 1, 10))] == [b"alert"]
        done(store.record([CursorMove("d", "device:d", "old-epoch", 1, 1, 0, NOW_MS)]))
        assert done(store.message("d1", 10)).devices
        assert done(store.add_subscription("d", "news", NOW_MS, 10))
        assert done(store.outbox_add("push", "key", b"body", NOW_MS))
        results = [PushRecord(name, "d", PushResult(1, PushOutcome.DELIVERED, apns_id=name)) for name in ("d1", "m3")]
        done(store.record_pushes(results))
        assert done(store.push_of("d1")) == results[0]
        assert done(store.message("m3", 10)).push_counts == {PushOutcome.DELIVERED: 1}
        done(store.remember_device(DeviceRecord("d", "u", push_token=PushToken(b"t", "org.example", False, NOW_MS))))
        assert not done(store.drop_token("d", b"t", NOW_MS - 1))
        assert done(store.subscribers("news", "", 10)) == ["d"]
        assert done(store.recall("d1", "notice", NOW_MS)) is not None
    assert examine(str(path)).faults == ()


def test_a_step_that_fails_changes_nothing_and_may_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    write(path, 1)
    change(path, "CREATE TABLE receipts (in_the_way INTEGER)")
    with pytest.raises(FileFault, match=r"store\.db: SQLite failed"), opened(path):
        pass
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == 1
        assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'scopes'").fetchone()[0] == 0
    change(path, "DROP TABLE receipts")
    with opened(path) as store:
        assert done(store.head("news")).top_offset == 3


def test_a_file_that_no_step_has_finished_is_begun_anew() -> None:
    with quick_folder() as folder:
        path = Path(folder) / "store.db"
        path.touch(0o600)  # all that a process has done that was killed at once
        with opened(path) as store:
            done(store.append(Draft("news", "m1", b"", NOW_MS)))
        assert examine(str(path)).faults == ()


def test_versions_follow_one_another_without_a_hole() -> None:
    assert [number for number, _ in schema_steps()] == list(range(1, SCHEMA_VERSION + 1))
