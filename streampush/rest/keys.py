"""Bearer keys: who calls, and what the caller may do. Only hashes are kept, and compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from streampush.config import KeyConfig
from streampush.protocol.codes import Code
from streampush.push.values import ChannelRules, Principal
from streampush.rest.problems import Problem

MAX_KEY_BYTES = 512
"""Longer keys are not even hashed."""

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="streampush"'}


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a key."""

    principal: Principal
    scopes: frozenset[str]

    def require(self, scope: str) -> None:
        """Raises Problem 403 if the key lacks the scope."""
        if scope not in self.scopes:
            raise Problem(403, f"the key {self.principal.name} lacks the scope {scope}", code=Code.FORBIDDEN)


class Keys:
    """The keys of the configuration."""

    def __init__(self, keys: Sequence[KeyConfig]) -> None:
        self._callers = [(key.sha256.lower().encode("ascii", "replace"), _caller(key)) for key in keys]

    def caller(self, authorization: Sequence[str]) -> Caller:
        """Who sent these `Authorization` headers. Raises Problem 401."""
        if not authorization:
            raise Problem(401, "a key is needed: Authorization: Bearer KEY", headers=_CHALLENGE)
        scheme, _, key = authorization[0].partition(" ")
        if len(authorization) != 1 or scheme.lower() != "bearer":
            raise Problem(401, "exactly one header is needed: Authorization: Bearer KEY", headers=_CHALLENGE)
        presented = key.strip().encode("utf-8", "surrogateescape")
        found = None
        if 0 < len(presented) <= MAX_KEY_BYTES:
            digest = sha256(presented).hexdigest().encode("ascii")
            for expected, caller in self._callers:  # all of them: the time must not tell which one it was
                if hmac.compare_digest(digest, expected):
                    found = caller
        if found is None:
            raise Problem(
                401,
                "the key is not known",
                headers={"WWW-Authenticate": f'{_CHALLENGE["WWW-Authenticate"]}, error="invalid_token"'},
            )
        return found


def _caller(key: KeyConfig) -> Caller:
    return Caller(Principal("key", key.name, may_publish=ChannelRules(tuple(key.publish))), frozenset(key.scopes))
