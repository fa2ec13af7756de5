"""The exceptions that callers of streampush's own API meet."""

from __future__ import annotations

from streampush.protocol.codes import CODES, Code


class StreampushError(Exception):
    """Base of everything below."""


class ConfigError(StreampushError):
    """The configuration cannot be used. `str()` is one line that names the file and the key."""

    def __init__(self, file: str, key: str, problem: str) -> None:
        super().__init__(f"{file}: {key}: {problem}" if key else f"{file}: {problem}")
        self.file = file
        self.key = key
        self.problem = problem


class Refused(StreampushError):
    """A request was understood and not done, or not wholly.

    `code` is what the peer is told, `detail` is English, safe to log and to send; `retry_after` is in seconds, 0 for no advice.
    """

    def __init__(self, code: Code, detail: str = "", *, channel: str = "", retry_after: float = 0.0) -> None:
        detail = detail or CODES[code].meaning
        super().__init__(f"{int(code)}: {detail}")
        self.code = code
        self.detail = detail
        self.channel = channel
        self.retry_after = retry_after


class StoreUnavailable(Refused):
    """The store cannot do its work now; nothing was stored."""

    def __init__(self, detail: str, *, retry_after: float = 1.0) -> None:
        super().__init__(Code.STORE_UNAVAILABLE, detail, retry_after=retry_after)
