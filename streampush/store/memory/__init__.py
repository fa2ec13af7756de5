"""The store of a process that keeps nothing: everything in memory, each part bounded by a limit of its own.

`durability` is MEMORY. A restart begins every log with a new epoch, and devices are told so.
"""

from streampush.store.memory.store import MemoryStore

__all__ = ["MemoryStore"]
