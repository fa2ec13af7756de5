"""What was published, who must get it, and whether everybody got everything once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

Entry = tuple[str, str]
"""A channel and a text."""


class Ledger:
    """`follows`: for each device the channels that it follows."""

    def __init__(self, follows: Mapping[str, frozenset[str]]) -> None:
        self._follows = follows
        self._due: dict[str, list[Entry]] = {device: [] for device in follows}
        self.published = 0

    def expect(self, channel: str, text: str) -> None:
        """This was published, and nobody takes it back before it has arrived."""
        self.published += 1
        for device, channels in self._follows.items():
            if channel in channels:
                self._due[device].append((channel, text))

    def recalled(self) -> None:
        """Something was published that must not arrive anywhere."""
        self.published += 1

    def due(self, device: str) -> int:
        """How many messages the device must have by now."""
        return len(self._due[device])

    def reckon(self, got: Mapping[str, Sequence[Entry]]) -> tuple[list[str], str, int]:
        """What is wrong, a line each; a sentence of counts; the exit status: 0 if every device got what was due, once."""
        wrong: list[str] = []
        missing = repeated = received = 0
        for device, due in self._due.items():
            has, wanted = Counter(got.get(device, ())), Counter(due)
            received += has.total()
            for (channel, text), number in (wanted - has).items():
                missing += number
                wrong.append(f"MISSING   {device}: {channel} {text!r}")
            for (channel, text), number in (has - wanted).items():
                repeated += number
                wrong.append(f"REPEATED  {device}: {channel} {text!r}")
        total = sum(map(len, self._due.values()))
        counts = (
            f"{len(self._due)} devices, {self.published} messages published, {total} deliveries due, {received} received, "
            f"{missing} missing, {repeated} repeated"
        )
        return wrong, counts, 1 if wrong else 0
