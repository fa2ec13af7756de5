"""What of the libraries a script needs.

A library's functions are made anew each time that a script runs, for which Redis takes some 0.3 us each: half of what a small
script costs. So those that nobody calls are left out when a script is put together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

FUNCTION = re.compile(r"^function (\w+\.\w+)\(.*?^end$", re.MULTILINE | re.DOTALL)
"""A function of a library as we write them: it begins and ends at the margin."""


def only_needed(libraries: Sequence[str], body: str) -> list[str]:
    """The libraries without the functions whose names (`log.state`) stand neither in the body, nor in a function that is needed,
    nor outside of functions."""
    functions = {found[1]: found[0] for library in libraries for found in FUNCTION.finditer(library)}
    texts = [body, *(FUNCTION.sub("", library) for library in libraries)]
    needed: set[str] = set()
    while texts:
        called = set(re.findall(r"\w+\.\w+", texts.pop())) & functions.keys() - needed
        needed |= called
        texts += [functions[name] for name in called]
    return [FUNCTION.sub(lambda found: found[0] if found[1] in needed else "", library) for library in libraries]
