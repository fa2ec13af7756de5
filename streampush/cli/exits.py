"""How the command ends: one line on stderr and an exit status that scripts can tell apart.

0  done                    3  the server refused the request
1  something is wrong      4  no connection to the server
2  wrong usage             5  credentials: certificates or the REST key
"""

from __future__ import annotations

import click

from streampush.protocol.codes import CODES, Advice, Code


class Failure(click.ClickException):
    """Something is wrong that has no status of its own."""

    exit_code = 1


class RefusedByServer(Failure):
    """The server understood the request and did not do it."""

    exit_code = 3


class NoConnection(Failure):
    """The server is not there, or went away."""

    exit_code = 4


class BadCredentials(Failure):
    """One side does not accept the other's certificate, or the server does not know the key."""

    exit_code = 5


def describe_code(code: Code | int, advice: Advice, detail: str = "", retry_after: float = 0.0) -> str:
    """A code of the protocol with what to do about it, for people; `retry_after` in seconds."""
    info = CODES.get(Code(code)) if code in CODES else None
    words = detail or (info.meaning if info else "unknown code")
    text = f"{int(code)} {words}"
    if advice is not Advice.UNSPECIFIED:
        text += f"; advice: {advice.name.lower().replace('_', ' ')}"
    if retry_after:
        text += f", after {retry_after:g} s"
    return text
