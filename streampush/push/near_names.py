"""Devices whose names a typing error may have made of one that is not known."""

from __future__ import annotations

from collections.abc import Iterable

from streampush.push.connections import Connections
from streampush.push.store_ports import Store

MAX_NEAR = 5
"""Near names that are shown."""
MAX_BEGINNING = 1_000
"""Known devices of one beginning whose names are compared, too; if there are more, those of a longer beginning are asked for."""
MAX_COMPARED = 10_000
"""Connected devices whose names are compared with one that is not known: some milliseconds."""


class NearNames:
    """Looks among the devices that are connected, and those that the store knows."""

    def __init__(self, store: Store, connections: Connections) -> None:
        self._store = store
        self._connections = connections

    async def of(self, device_id: str) -> tuple[str, ...]:
        """At most MAX_NEAR names, if need be also those that begin with this one. Raises Refused(STORE_UNAVAILABLE)."""
        near = near_names(device_id, await self._alike(device_id), MAX_NEAR)
        if len(near) < MAX_NEAR:  # the beginning of a name
            longer = await self._store.devices_named(device_id, MAX_NEAR)
            near = tuple(dict.fromkeys((*near, *longer)))[:MAX_NEAR]
        return near

    async def _alike(self, device_id: str) -> list[str]:
        """Devices that are connected, and those in the store whose ids begin like the asked one: fewer letters of it as long as
        all that begin so are seen."""
        names = list(self._connections.names(MAX_COMPARED))
        for length in (1, len(device_id) // 2, len(device_id) - 2):
            complete = True
            beginning = device_id[:length]
            for prefix in dict.fromkeys((beginning, beginning.lower(), beginning.upper())):
                found = await self._store.devices_named(prefix, MAX_BEGINNING)
                names += found
                complete = complete and len(found) < MAX_BEGINNING
            if complete:
                break
        return list(dict.fromkeys(names))


def near_names(name: str, names: Iterable[str], at_most: int) -> tuple[str, ...]:
    """Names that a typing error may have made of the wanted one: other case, or one letter more, less, other, or swapped."""
    wanted = name.casefold()
    found = []
    for other in names:
        if abs(len(other) - len(wanted)) <= 1 and _nearly(wanted, other.casefold()):
            found.append(other)
            if len(found) == at_most:
                break
    return tuple(sorted(found))


def _nearly(left: str, right: str) -> bool:
    start = 0
    while start < min(len(left), len(right)) and left[start] == right[start]:
        start += 1
    end = 0
    while end < min(len(left), len(right)) - start and left[-1 - end] == right[-1 - end]:
        end += 1
    rest, other = left[start : len(left) - end], right[start : len(right) - end]
    return max(len(rest), len(other)) <= 1 or (len(rest) == len(other) == 2 and rest == other[::-1])
