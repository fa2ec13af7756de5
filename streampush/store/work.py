"""How much work the outbox of any store takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.values import OutboxWork

GROWTH = 2
"""So many times what the limit says is there room for what accepted work leads to: with less, an outbox full of work that must
become more of it could never be emptied; with no bound, one message to many devices would fill the disk."""


def check(held: int, max_works: int, channel: str = "") -> None:
    """Raises Refused(QUOTA_EXCEEDED) if new work finds as much as there may be."""
    if held >= max_works:
        raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {held} entries of work, its limit", channel=channel)


def check_growth(held: int, added: int, max_works: int) -> None:
    """The same for one of those that are held becoming so many. One that becomes one, or none, always may."""
    if added > 1 and held - 1 + added > GROWTH * max_works:
        raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {held} entries of work, {GROWTH} times its limit is {max_works}")


def new_among(works: Sequence[OutboxWork], is_known: Callable[[tuple[str, str]], bool]) -> list[OutboxWork]:
    """Those whose kind and key are not there yet; of equal ones the first."""
    found: dict[tuple[str, str], OutboxWork] = {}
    for work in works:
        key = work.kind, work.key
        if key not in found and not is_known(key):
            found[key] = work
    return list(found.values())
