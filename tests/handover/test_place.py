"""Unix sockets with a path."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from streampush.handover.place import Peer, Place, peer_of
from streampush.handover.successor import why_not_followed


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "h.sock")
    assert [name for name in os.listdir(tmp_path) if name != "h.sock"] == []


def test_only_its_user_may_connect(path: str) -> None:
    with Place(path).claim():
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_file_that_a_killed_process_left_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with Place(path).claim(), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_the_next_process_has_the_path_and_the_last_one_does_not_take_it_away(path: str) -> None:
    first, second = Place(path), Place(path)
    with first.claim(), second.claim():
        assert (first.is_ours, second.is_ours) == (False, True)
        first.leave()
        assert second.is_ours
        second.leave()
        assert not os.path.exists(path)


def test_what_is_no_socket_is_not_replaced(path: str) -> None:
    Path(path).write_text("notes")
    with pytest.raises(FileExistsError):
        Place(path).claim()
    assert Path(path).read_text() == "notes"


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Place(str(tmp_path / "none" / "h.sock")).claim()


def test_who_connects_and_who_listens_is_known(path: str) -> None:
    with Place(path).claim() as listening, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        accepted, _ = listening.accept()
        with accepted:
            assert peer_of(accepted) == peer_of(client) == Peer(os.getpid(), os.geteuid())


@pytest.mark.parametrize(("uid", "trusted"), [(1000, True), (0, True), (1001, False)])
def test_the_same_user_is_trusted_and_who_may_do_everything_anyway(uid: int, trusted: bool) -> None:
    assert Peer(1, uid).is_trusted(1000) is trusted


@pytest.mark.parametrize(
    ("peer", "own", "mode", "problem"),
    [
        (1000, 1000, 0o1777, ""),
        (0, 1000, 0o1777, ""),
        (1001, 1000, 0o700, "user 1001's, this process runs as 1000"),
        (1000, 0, 0o755, ""),
        (1000, 0, 0o1777, "anybody can make one"),
    ],
)
def test_who_is_followed(tmp_path: Path, peer: int, own: int, mode: int, problem: str) -> None:
    """The superuser follows those who have given up its rights, but not whoever was first in /tmp."""
    tmp_path.chmod(mode)
    why = why_not_followed(Peer(1, peer), own, str(tmp_path / "h.sock"))
    assert problem in why
    assert bool(problem) == bool(why)
