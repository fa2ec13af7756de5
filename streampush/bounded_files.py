"""Files that settings name, read without harm whatever the name stands for: a pipe, a device, a file of the wrong kind."""

from __future__ import annotations

import os
import stat


class UnusableFile(Exception):
    """`str()` says what is wrong, in words that stand behind the file's name; nothing of what is in it."""


class TooLong(UnusableFile):
    """The file has more bytes than were allowed."""


def read_bounded(path: str, limit: int, *, private: bool = False) -> bytes:
    """The bytes of a regular file, at most `limit`. `private`: nobody but its owner may use it. Raises UnusableFile.

    Does not wait: to open a pipe that nobody writes to would take for ever, and a reload is done while devices are served.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnusableFile("is not a regular file")
            mode = stat.S_IMODE(status.st_mode)
            if private and mode & 0o077:
                raise UnusableFile(f"can be used by others (mode {mode:04o}), type: chmod 600 {path}")
            data = file.read(limit + 1)
    except OSError as error:
        raise UnusableFile(f"cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise TooLong(f"is longer than {limit} bytes")
    return data
