"""`streampush store`, as a process of its own, also beside a process that has the store open and writes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streampush.store.sqlite.file import SCHEMA_VERSION
from tests.store.folders import quick_folder
from tests.store.sqlite_file import change, command, done, fill, opened

WRITER = """
import sys
from pathlib import Path
from tests.store.sqlite_file import done, draft, opened
with opened(Path(sys.argv[1])) as store:
    for number in range(100_000):
        done(store.append(draft("busy", f"b{number}")))
        print(number, flush=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as name:
        folder = Path(name)
        (folder / "streampush.toml").write_text("[store]\npath = 'store.db'\n" + TLS)
        with opened(folder / "store.db") as store:
            fill(store)
        yield folder


TLS = '[tls]\ncertificate = "server.crt"\nkey = "server.key"\nclient_ca = "ca.crt"\n'


@pytest.fixture
def writer(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the store and appends to it all the time."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder / "store.db")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_check_says_ok_and_what_the_store_of_the_configuration_holds(folder: Path) -> None:
    checked = command("store", "check", cwd=folder)
    assert (checked.returncode, checked.stderr) == (0, "")
    lines = checked.stdout.splitlines()
    assert lines[0] == "ok"
    assert lines[1].startswith(f"  file          {folder}/store.db, ")
    assert lines[1].endswith(f" KiB, schema {SCHEMA_VERSION}")
    assert lines[2] == "  channels      2, with 22 publications"


def test_check_names_faults_with_status_1(folder: Path) -> None:
    change(folder / "store.db", "UPDATE store SET publications = 1")
    checked = command("store", "check", folder / "store.db")
    assert checked.returncode == 1
    assert checked.stdout == "fault: 1 totals of the store are wrong\n1 fault\n"


def test_what_cannot_be_checked_is_one_line_with_status_1(folder: Path) -> None:
    checked = command("store", "check", folder / "none.db")
    assert (checked.returncode, checked.stdout) == (1, "")
    assert checked.stderr == f"Error: {folder}/none.db is not there\n"


def test_a_store_in_memory_has_no_file(folder: Path) -> None:
    checked = command("store", "check", "--set", "store.backend=memory", cwd=folder)
    assert checked.returncode == 1
    assert checked.stderr == 'Error: streampush.toml: store.backend: "memory" keeps nothing on disk\n'


def test_a_wrong_setting_is_named(folder: Path) -> None:
    checked = command("store", "compact", "--set", "store.max_queue=0", cwd=folder)
    assert checked.returncode == 1
    assert "store.max_queue" in checked.stderr


def test_backup_and_restore_give_the_store_back(folder: Path) -> None:
    assert command("store", "backup", folder / "b.db", cwd=folder).returncode == 0
    change(folder / "store.db", "DELETE FROM entries")
    restored = command("store", "restore", folder / "b.db", cwd=folder)
    assert restored.returncode == 0, restored.stderr
    assert restored.stdout.startswith(f"{folder}/store.db: ")
    assert command("store", "check", cwd=folder).returncode == 0


def test_backup_replaces_only_when_told(folder: Path) -> None:
    assert command("store", "backup", folder / "b.db", cwd=folder).returncode == 0
    again = command("store", "backup", folder / "b.db", cwd=folder)
    assert (again.returncode, again.stderr) == (
        1,
        f"Error: {folder}/b.db exists, and is replaced only when that is asked for (--replace)\n",
    )
    assert command("store", "backup", "--replace", folder / "b.db", cwd=folder).returncode == 0


@pytest.mark.parametrize(("name", "fault"), [("taken", "is a directory"), ("store.db", "is the store itself")])
def test_backup_never_replaces_a_directory_or_the_store(folder: Path, name: str, fault: str) -> None:
    (folder / "taken").mkdir()
    refused = command("store", "backup", "--replace", folder / name, cwd=folder)
    assert (refused.returncode, refused.stderr) == (1, f"Error: {folder}/{name} {fault}\n")
    assert command("store", "check", cwd=folder).returncode == 0


def test_compact_says_what_it_gave_back(folder: Path) -> None:
    compacted = command("store", "compact", cwd=folder)
    assert compacted.returncode == 0
    assert compacted.stdout.startswith(f"{folder}/store.db: ")
    assert compacted.stdout.endswith(" now\n")


def test_check_and_backup_work_beside_a_process_that_writes(folder: Path, writer: subprocess.Popen[bytes]) -> None:
    checked = command("store", "check", cwd=folder)
    assert (checked.returncode, checked.stdout[:3]) == (0, "ok\n"), checked.stdout
    saved = command("store", "backup", folder / "b.db", cwd=folder)
    assert saved.returncode == 0, saved.stderr
    assert writer.poll() is None
    of_the_copy = command("store", "check", folder / "b.db")
    assert of_the_copy.returncode == 0, of_the_copy.stdout


def test_a_backup_holds_what_was_acknowledged_before_it_began(folder: Path, writer: subprocess.Popen[bytes]) -> None:
    assert writer.stdout is not None
    acknowledged = int(writer.stdout.readline())
    assert command("store", "backup", folder / "b.db", cwd=folder).returncode == 0
    with opened(folder / "b.db") as store:
        assert done(store.head("busy")).top_offset > acknowledged


def test_compact_and_restore_are_refused_beside_a_process_that_has_the_store(folder: Path, writer: subprocess.Popen[bytes]) -> None:
    for arguments in (("compact",), ("restore", folder / "store.db.copy")):
        (folder / "store.db.copy").write_bytes((folder / "store.db").read_bytes())
        refused = command("store", *arguments, cwd=folder)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == f"Error: {folder}/store.db is in use by another process, {writer.pid}\n"


def test_a_store_whose_process_was_killed_is_checked_with_its_write_ahead_log(
    folder: Path, writer: subprocess.Popen[bytes]
) -> None:
    assert writer.stdout is not None
    acknowledged = int(writer.stdout.readline())
    writer.kill()
    writer.wait()
    assert (folder / "store.db-wal").stat().st_size > 0
    checked = command("store", "check", cwd=folder)
    assert checked.returncode == 0, checked.stdout
    publications = int(checked.stdout.partition("with ")[2].split()[0])
    assert publications > acknowledged
