"""What the HTTP API is made of: routes, calls, operations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from werkzeug.routing import BaseConverter

from streampush.push.values import Principal
from streampush.rest.keys import Caller
from streampush.rest.problems import Answer


class ChannelConverter(BaseConverter):
    """The rest of a path as the name of a channel, whatever slashes it has, also in front; percent-encoding is undone before."""

    regex = ".+"
    part_isolating = False


@dataclass(frozen=True, slots=True)
class Route:
    """A path, as werkzeug writes it, with its method.

    `scope`: what the key must have; empty: no key is needed. `query`: the parameters behind the `?`.
    """

    method: str
    path: str
    operation: str
    scope: str = ""
    query: tuple[str, ...] = ()


@dataclass(slots=True)
class Call:
    """One request on its way. `texts` gives the values of a header; `given_up`: nobody waits for the answer any more."""

    body: bytes = field(repr=False)
    caller: Caller
    arguments: dict[str, str]
    query: Mapping[str, str]
    texts: Callable[[str], list[str]] = field(repr=False)
    given_up: bool = False

    @property
    def principal(self) -> Principal:
        """Who calls."""
        return self.caller.principal


Operation = Callable[[Call], Awaitable[Answer]]
