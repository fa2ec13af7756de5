"""The metrics of all workers as those of one node, in Prometheus' text format. Without IO.

- Counters and histograms are sums. They never fall when a worker is started again, or does not answer: what a process has shown
  last stays in the sum for good, and the next process of that worker begins above it.
- Gauges that count what each worker has of its own are sums, too (SUMMED). All others would say nothing as a sum (ages, limits,
  what all workers see of one store, a version): they carry a label `worker`. Gauges of a worker that does not answer are left out.

Series are told apart by name and labels as they are written, which is the same in all workers: they are the same program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.utils import floatToGoString

SUMMED: Final = frozenset(
    {
        "streampush_connections",
        "streampush_connections_cap",
        "streampush_handshake_capacity",
        "streampush_handshakes_free",
        "streampush_slots_promised",
        "streampush_event_streams",
        "streampush_apns_connections",
        "streampush_apns_waiting",
        "streampush_apns_waiting_bytes",
        "streampush_apns_in_flight",
        "streampush_store_waiting",
    }
)
"""Gauges whose sum is what the node has."""

MAX_SERIES: Final = 20_000
"""Series of one worker; a node has some hundreds. More are not read: whoever scrapes, and this process, must not drown in them."""

_ADDED: Final = frozenset({"counter", "histogram", "summary"})


@dataclass(slots=True)
class Family:
    """A metric: its HELP and TYPE lines, and what `name` and labels of each series stand for."""

    head: tuple[str, ...] = ()
    kind: str = "untyped"
    series: dict[str, float] = field(default_factory=dict)


class BadMetrics(Exception):
    """A text is not what workers write. `str()` says what is wrong, and quotes nothing."""


def parse(text: str) -> dict[str, Family]:
    """Families by name, in their order. Raises BadMetrics."""
    families: dict[str, Family] = {}
    current, count = Family(), 0
    for line in text.splitlines():
        if line.startswith("# "):
            current = _head(line, families)
        elif line:
            count += 1
            if count > MAX_SERIES:
                raise BadMetrics(f"more than {MAX_SERIES} series")
            key, _, value = line.rpartition(" ")
            try:
                current.series[key] = float(value)
            except ValueError:
                raise BadMetrics("a line without a number") from None
    return families


def _head(line: str, families: dict[str, Family]) -> Family:
    parts = line.split(" ", 3)
    if len(parts) < 4 or parts[1] not in ("HELP", "TYPE"):
        raise BadMetrics("a comment that is neither HELP nor TYPE")
    family = families.setdefault(parts[2], Family())
    family.head = (*family.head, line)
    if parts[1] == "TYPE":
        family.kind = parts[3]
    return family


Answers = dict[int, tuple[int, dict[str, Family]]]
"""By worker what it wrote just now, with the number of the process that it is of."""


class Totals:
    """The sums over workers, kept up over their deaths."""

    def __init__(self) -> None:
        self._ended: dict[str, Family] = {}  # of processes that are gone: the sums of what each showed last
        self._shown: dict[int, tuple[int, dict[str, Family]]] = {}  # by worker, what its process showed last; what is added only

    def render(self, answers: Answers) -> str:
        """The text for all, of what these workers wrote and of what the others showed before."""
        for worker, (incarnation, families) in answers.items():
            self._take(worker, incarnation, families)
        lines: list[str] = []
        for name, family in self._heads(answers).items():
            lines += family.head
            lines += self._sums(name) if family.kind in _ADDED else _gauges(name, answers)
        return "".join(f"{line}\n" for line in lines)

    def _take(self, worker: int, incarnation: int, families: dict[str, Family]) -> None:
        before, shown = self._shown.get(worker, (incarnation, {}))
        if before != incarnation:
            for name, family in shown.items():
                ended = self._ended.setdefault(name, Family(family.head, family.kind))
                if len(ended.series) < MAX_SERIES:
                    _add(ended.series, family.series)
        self._shown[worker] = (incarnation, {name: family for name, family in families.items() if family.kind in _ADDED})

    def _heads(self, answers: Answers) -> dict[str, Family]:
        heads: dict[str, Family] = {}
        for families in (*(each for _, each in answers.values()), *(each for _, each in self._shown.values()), self._ended):
            for name, family in families.items():
                heads.setdefault(name, family)
        return heads

    def _sums(self, name: str) -> Iterator[str]:
        sums: dict[str, float] = {}
        for families in (*(each for _, each in self._shown.values()), self._ended):
            if name in families:
                _add(sums, families[name].series)
        return _lines(sums)


def _gauges(name: str, answers: Answers) -> Iterator[str]:
    found = [(worker, families[name].series) for worker, (_, families) in sorted(answers.items()) if name in families]
    if name not in SUMMED:
        return _lines({_labelled(key, worker): value for worker, series in found for key, value in series.items()})
    sums: dict[str, float] = {}
    for _, series in found:
        _add(sums, series)
    return _lines(sums)


def _add(sums: dict[str, float], series: dict[str, float]) -> None:
    for key, value in series.items():
        sums[key] = sums.get(key, 0.0) + value


def _lines(series: dict[str, float]) -> Iterator[str]:
    return (f"{key} {_number(value)}" for key, value in series.items())


def _labelled(key: str, worker: int) -> str:
    name, brace, labels = key.partition("{")
    return f'{name}{{worker="{worker}"' + (f",{labels}" if brace else "}")


def _number(value: float) -> str:
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]  # not annotated
    return text
