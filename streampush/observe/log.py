"""The structured log: one line an event, repeated lines sampled, secrets and payloads never written.

An event of `twisted.logger` becomes one JSON object: time, level, namespace, message (the text for people), event (the same text
before it was filled in, so that it can be searched for) and the event's fields, as far as they are JSON scalars. A field whose
name suggests a secret or a payload is left out, and so is every value that is no scalar: bytes above all. Where the message
names such a field it has "(not shown)".
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import RLock
from typing import Any, TextIO

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, formatTime
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.config import LogConfig
from streampush.observe.sampling import Sampler

MAX_TEXT = 2_000
"""Characters of one value, and of the message; what is longer is cut."""
MAX_TRACEBACK = 16_000
"""Characters of a traceback; the end, which names the exception, is kept."""
MAX_FIELDS = 40
"""Fields of one event."""

_FORBIDDEN = re.compile(r"token|key|secret|passw|authoriz|payload|body|credential|cookie", re.IGNORECASE)
_RESERVED = frozenset({"time", "level", "namespace", "message", "event", "failure", "traceback"})
_WHOLE_TEXT = (None, "{log_io}", "{log_text}")
"""Format texts of events that carry their text in a field, with nothing to fill in."""
_SAMPLED = "{count} more lines in the last {window} s of {of_namespace}: {of_event}"
_SELF = "streampush.observe.log"

Kind = tuple[str, str]
Formatter = Callable[[LogEvent], str]


def json_line(event: LogEvent) -> str:
    """The event as one line of ASCII JSON."""
    level = event.get("log_level")
    record: dict[str, Any] = {
        "time": datetime.fromtimestamp(event.get("log_time", 0.0), UTC).isoformat(timespec="milliseconds"),
        "level": level.name if level is not None else LogLevel.info.name,
        "namespace": event.get("log_namespace") or "",
        "message": _message(event),
        "event": _cut(_text_of(event)),
    }
    for name, value in list(_fields(event).items())[:MAX_FIELDS]:
        record[f"_{name}" if name in _RESERVED else name] = value
    failure = _failure_of(event)
    if failure is not None:
        record["failure"] = f"{failure.type.__module__}.{failure.type.__qualname__}" if failure.type else "unknown"
        record["traceback"] = _traceback(failure)
    return json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"


def text_line(event: LogEvent) -> str:
    """The event as Twisted writes it, after the same redaction; a traceback follows in lines that begin with a tab."""
    message, failure = _message(event), _failure_of(event)
    if not message and failure is None:
        return ""
    system = event.get("log_system")
    if system is None:
        level = event.get("log_level")
        system = f"{event.get('log_namespace') or '-'}#{level.name if level is not None else '-'}"
    lines = [f"{formatTime(event.get('log_time'))} [{_visible(_cut(str(system)))}] {message}"]
    if failure is not None:
        lines += [_visible(line) for line in _traceback(failure).rstrip().split("\n")]
    return "\n\t".join(lines) + "\n"


class _NotShown:
    """Stands for a value that is not written, whatever the format text wants of it."""

    def __getattr__(self, name: str) -> _NotShown:
        return self

    def __getitem__(self, key: object) -> _NotShown:
        return self

    def __call__(self) -> _NotShown:
        return self

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return "(not shown)"


_HIDDEN = _NotShown()


def _message(event: LogEvent) -> str:
    """The event's text, filled in: one line, without what must not be written."""
    text = _text_of(event)
    if event.get("log_format") not in _WHOLE_TEXT:
        safe: LogEvent = {"log_format": text}
        for name, value in event.items():
            if name in ("log_format", "log_flattened"):  # the latter is the filled-in text of before the redaction
                continue
            forbidden = not name.startswith("log_") and _FORBIDDEN.search(name)
            safe[name] = value if not forbidden and _is_scalar(value) else _HIDDEN
        text = formatEvent(safe)
    return _cut(_visible(_cut(text)))


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _visible(text: str) -> str:
    """The text with control, invisible and line-breaking characters as their escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _failure_of(event: LogEvent) -> Failure | None:
    failure = event.get("log_failure")
    if failure is None and event.get("isError"):  # `twisted.python.log.err`
        failure = event.get("failure")
    return failure if isinstance(failure, Failure) else None


def _traceback(failure: Failure) -> str:
    return failure.getTraceback()[-MAX_TRACEBACK:]


def _text_of(event: LogEvent) -> str:
    """What happened. An event of the old `twisted.python.log`, or a line that was printed, has its text in a field."""
    text = event.get("log_format")
    if text == "{log_text}" and _failure_of(event) is not None:  # the traceback is in that text too, and written by itself
        return str(event.get("why") or "Unhandled Error")
    if text == "{log_io}":
        text = event.get("log_io")
    if text is None or text == "{log_text}":
        text = event.get("log_text") or text or ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def _fields(event: LogEvent) -> dict[str, str | int | float | bool | None]:
    fields: dict[str, str | int | float | bool | None] = {}
    for name, value in event.items():
        if name.startswith("log_") or _FORBIDDEN.search(name):
            continue
        if isinstance(value, str):
            fields[name] = _cut(value)
        elif _is_scalar(value) and not (isinstance(value, float) and not math.isfinite(value)):
            fields[name] = value
    return fields


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


@implementer(ILogObserver)
class LineObserver:
    """Writes events to `out`, one call of `write` and of `flush` an event. Never raises for a stream that is broken.

    May be called from any thread; `start` and `stop` belong to the clock's. `clock` measures the windows of the sampling.
    """

    def __init__(
        self,
        out: TextIO,
        form: Formatter,
        sampler: Sampler[Kind],
        clock: IReactorTime,
        interval: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._out = out
        self._form = form
        self._sampler = sampler
        self._clock = clock
        self._interval = interval
        self._wall = wall
        self._lock = RLock()
        self._writing = False
        self._call: IDelayedCall | None = None
        self.lost = 0
        """Lines that the stream did not take."""

    def __call__(self, event: LogEvent) -> None:
        kind = (event.get("log_namespace") or "", str(event.get("log_format"))[:MAX_TEXT])
        with self._lock:
            if self._writing:  # the stream itself logs: an endless loop otherwise
                return
            now = self._clock.seconds()
            self._report(now)
            if self._sampler.admit(kind, now):
                self._write(event)

    def start(self) -> None:
        """Reports withheld lines from now on also when nothing else is logged. Starting twice is harmless."""
        if self._call is None:
            self._call = self._clock.callLater(self._interval, self._sweep)

    def stop(self) -> None:
        """Reports what was withheld so far and leaves no timer behind."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        with self._lock:
            self._report(math.inf)

    def _sweep(self) -> None:
        self._call = self._clock.callLater(self._interval, self._sweep)
        with self._lock:
            self._report(self._clock.seconds())

    def _report(self, now: float) -> None:
        for (namespace, text), count in self._sampler.ended(now):
            self._write(
                {
                    "log_time": self._wall(),
                    "log_level": LogLevel.warn,
                    "log_namespace": _SELF,
                    "log_format": _SAMPLED,
                    "count": count,
                    "window": self._interval,
                    "of_namespace": namespace,
                    "of_event": text,
                }
            )

    def _write(self, event: LogEvent) -> None:
        self._writing = True
        try:
            self._out.write(self._form(event))
            self._out.flush()
        except (OSError, ValueError):  # ValueError: the file is closed
            self.lost += 1
        finally:
            self._writing = False


def of_node(form: Formatter, node: str) -> Formatter:
    """The same lines with the node's name in a field `node`, in text in front: for processes that write to one place."""
    if form is json_line:
        return lambda event: json_line(event if "node" in event else {**event, "node": node})
    return lambda event: f"{node} {line}" if (line := form(event)) else ""


def make_observer_factory(config: LogConfig, out: TextIO, clock: IReactorTime, *, node: str = "") -> Callable[[], LineObserver]:
    """A factory of observers for `twistd`'s logger component, after `[log]` of the configuration.

    `out` must not be `sys.stdout` as Twisted replaces it; the caller calls the observer's `start` and `stop`. `node` is named in
    each line, if it is given.
    """
    plain = json_line if config.format == "json" else text_line
    form = of_node(plain, node) if node else plain

    def make() -> LineObserver:
        sampler: Sampler[Kind] = Sampler(config.sample_burst, config.sample_window)
        return LineObserver(out, form, sampler, clock, config.sample_window)

    return make
