"""The store of one process on disk: one SQLite file, a thread that writes it, a thread that reads it."""

from __future__ import annotations

from streampush.store.sqlite.file import FileFault, Locked
from streampush.store.sqlite.store import SqliteStore

__all__ = ["FileFault", "Locked", "SqliteStore"]
