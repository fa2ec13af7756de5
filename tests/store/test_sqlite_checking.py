"""What `examine` finds: nothing in a sound file, whatever was done with it; and each kind of damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from streampush.config import StoreConfig
from streampush.push.values import DeviceRecord, PushToken
from streampush.store.sqlite import FileFault
from streampush.store.sqlite.checking import examine
from tests.store.folders import quick_folder
from tests.store.sqlite_file import change, damage, done, draft, fill, opened, root_page


@pytest.fixture
def path() -> object:
    with quick_folder() as folder:
        path = Path(folder) / "store.db"
        with opened(path) as store:
            fill(store)
        yield path


def test_a_sound_file_has_no_faults_and_says_what_it_holds(path: Path) -> None:
    found = examine(str(path))
    assert found.faults == ()
    assert found.held is not None
    assert (found.held.channels, found.held.publications, found.held.devices, found.held.scheduled, found.held.outbox) == (
        2,
        22,
        1,
        1,
        1,
    )


def test_a_new_file_has_no_faults(tmp_path: Path) -> None:
    with opened(tmp_path / "new.db"):
        pass
    assert examine(str(tmp_path / "new.db")).faults == ()


def test_a_trimmed_store_has_no_faults(path: Path) -> None:
    with opened(path, StoreConfig(history_messages=5)) as store:
        for _ in range(30):
            done(store.append(draft("news")))
    assert examine(str(path)).faults == ()


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("DELETE FROM entries WHERE message_id = 'm7'", "1 channels have holes in their offsets, or entries outside of them"),
        ("UPDATE channels SET floor = floor + 1 WHERE name = 'news'", "1 channels have holes"),
        ("DELETE FROM channels WHERE name = 'device:d'", "1 entries belong to no channel"),
        ("UPDATE channels SET size = size + 1", "2 channels count their bytes or what expires wrongly"),
        ("UPDATE channels SET expiring = 1 WHERE name = 'news'", "1 channels count their bytes"),
        ("UPDATE channels SET oldest_at = 1 WHERE name = 'news'", "1 channels are wrong about the age"),
        ("UPDATE channels SET pushed = 99 WHERE name = 'news'", "1 channels count their bytes"),
        ("INSERT INTO push_counts VALUES (1, 1, 0, 0, 0, 0)", "1 receipts are of no entry"),
        ("INSERT INTO push_counts SELECT id, 1, 0, 0, 0, 0 FROM entries WHERE message_id = 'm7'", "1 pushes are counted that"),
        ("UPDATE entries SET superseded_by = 1 WHERE message_id = 'm3'", "1 entries are superseded by none that is newer"),
        ("UPDATE entries SET payload = x'00' WHERE message_id = 'm3'", "1 payloads have another size"),
        ("UPDATE entries SET collapse_key = 'other' WHERE message_id = 'collapsed'", "1 collapse keys name an entry"),
        ("UPDATE collapses SET version = 9", "1 collapse keys name an entry"),
        ("INSERT INTO receipts (entry, device) VALUES (1, 'd')", "1 receipts are of no entry"),
        ("INSERT INTO receipt_counts (entry) VALUES (1)", "1 receipts are of no entry"),
        ("UPDATE cursors SET position = 999", "1 cursors are ahead of their channel"),
        ("UPDATE cursors SET moved = 999", "1 cursors or subscriptions have an order or an owner"),
        ("UPDATE subscriptions SET device = 'other'", "1 cursors or subscriptions have an order or an owner"),
        ("UPDATE scopes SET keys = 7", "1 publishers have another number of idempotency keys"),
        ("DELETE FROM scopes", "1 publishers have another number of idempotency keys"),
        ("UPDATE store SET publications = 1", "1 totals of the store are wrong"),
        ("UPDATE store SET bytes = bytes + 1", "1 totals of the store are wrong"),
        ("UPDATE store SET outbox = 0, devices = 0", "2 totals of the store are wrong"),
        ("DELETE FROM store", "1 rows of the store's own table are missing or too many"),
    ],
)
def test_a_broken_rule_is_named(path: Path, statement: str, fault: str) -> None:
    change(path, statement)
    assert any(found.startswith(fault) for found in examine(str(path)).faults)


@pytest.mark.parametrize("name", ["entries", "channels", "entries_by_message", "cursors"])
def test_a_page_of_noise_is_found_wherever_it_is(path: Path, name: str) -> None:
    damage(path, root_page(path, name))
    assert examine(str(path)).faults


def test_a_file_cut_short_is_found(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 3 * 4096)
    try:
        faults: tuple[str, ...] = examine(str(path)).faults
    except FileFault as fault:
        faults = (str(fault),)
    assert faults


def test_faults_name_no_data_of_the_file(path: Path) -> None:
    with opened(path) as store:
        done(store.append(draft("news", "m-secret", b"TOPSECRET" * 3000)))
    damage(path, root_page(path, "entries_by_message"))
    assert "TOPSECRET" not in "".join(examine(str(path)).faults)


def test_a_file_of_an_older_schema_is_checked_page_by_page(path: Path) -> None:
    change(path, "PRAGMA user_version = 1")
    found = examine(str(path))
    assert (found.version, found.is_older, found.faults, found.held) == (1, True, (), None)


def test_what_is_no_store_cannot_be_checked(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    (tmp_path / "text.db").write_text("not a database, but long enough to have a header " * 10)
    for name, words in (("none.db", "is not there"), ("empty.db", "is empty"), ("text.db", "is not an SQLite database")):
        with pytest.raises(FileFault, match=words):
            examine(str(tmp_path / name))


def test_devices_with_the_same_push_token_are_found(path: Path) -> None:
    with opened(path) as store:
        for name, token in (("a", b"1"), ("b", b"2"), ("c", b"3")):
            done(store.remember_device(DeviceRecord(name, push_token=PushToken(token, "org.example", False))))
    change(path, "UPDATE devices SET push_token = x'31' WHERE id IN ('b', 'c')")
    assert examine(str(path)).faults == ("2 devices have the push token of another",)
