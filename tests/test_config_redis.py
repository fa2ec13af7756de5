"""The settings of a store in Redis: the short form, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from streampush.loading import read_config

TLS = '[tls]\ncertificate = "a"\nkey = "b"\nclient_ca = "c"\n'


def read(tmp_path: Path, text: str, *overrides: str) -> tuple[object, list[str]]:
    path = tmp_path / "streampush.toml"
    path.write_text(text)
    config, found = read_config(str(path), {}, overrides)
    return config.store, [f"{problem.key}: {problem.text}" for problem in found if problem.severity == "error"]


def test_one_line_says_backend_and_url(tmp_path: Path) -> None:
    store, errors = read(tmp_path, 'store = "redis://:secret@r.example/1"\n' + TLS)
    assert errors == []
    assert (store.backend, store.url) == ("redis", "redis://:secret@r.example/1")  # type: ignore[attr-defined]  # StoreConfig
    assert "secret" not in repr(store)


def test_so_does_the_section(tmp_path: Path) -> None:
    store, errors = read(tmp_path, TLS + '[store]\nbackend = "redis"\nurl = "redis+sentinel://a,b/main"\nhistory_messages = 7\n')
    assert (errors, store.history_messages) == ([], 7)  # type: ignore[attr-defined]  # StoreConfig


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        (("store.backend=redis",), "store.url", "required"),
        (("store.url=redis://h",), "store.backend", "names a Redis"),
        (("store.backend=redis", "store.url=http://:hidden@h"), "store.url", "must begin with"),
        (("store.backend=redis", "store.url=redis://h", "store.prefix=a b"), "store.prefix", "allowed are"),
        (("store.backend=redis", "store.url=redis://:hidden@h", "store.password_file=p"), "store.password_file", "one of them"),
        (("store.backend=redis", "store.url=rediss://h", "store.certificate=c"), "store.key", "required with"),
        (("store.backend=redis", "store.url=redis://h", "store.ca=c"), "store.ca", "rediss://"),
    ],
)
def test_what_is_wrong_is_named_without_its_secrets(tmp_path: Path, settings: tuple[str, ...], key: str, words: str) -> None:
    _, errors = read(tmp_path, TLS, *settings)
    assert [error for error in errors if error.startswith(f"{key}: ") and words in error]
    assert not [error for error in errors if "hidden" in error]
