"""The scripts that the store runs in Redis: read from `lua/`, put together with the libraries that they need, called by hash.

A script is `lua/NAME.lua`; a line `--! needs log keys` names libraries, `lua/lib/log.lua`, which may need others. Arguments and
answer are one MessagePack value each, which both sides read in C; a script says `return refused(code, detail)` for Refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Protocol

import msgpack

from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import Code
from streampush.store.redis.needed import only_needed

_NEEDS = "--! needs "
_REFUSED = "REFUSED "
_NOT_BEGUN = "NOEPOCH"

MAX_WORDS = 200
"""Characters of what Redis says that are kept."""

LAYOUT = 1
"""Which keys there are and what lies in them: a number that rises when scripts of before could not read it any more."""

PRELUDE = """\
local P = KEYS[1]
local call = redis.call
local pack, unpack = cmsgpack.pack, cmsgpack.unpack
local args = unpack(ARGV[1])
local function refused(code, detail)
  return redis.error_reply('REFUSED ' .. code .. ' ' .. detail)
end
"""


class ScriptFailed(Exception):
    """A script of ours, or Redis, did not do what it must: a fault to be mended. Its text has no value of a message in it."""


class RedisLike(Protocol):
    """What runs commands: streampush.store.redis.link.RedisLink."""

    def command(self, *parts: bytes | str | int) -> Awaitable[Any]:
        """The answer to one command; an error of Redis as a value. Raises StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class Script:
    """The whole text of a script, and the hash that Redis knows it by."""

    name: str
    text: str
    digest: str


def load_scripts() -> dict[str, Script]:
    """All scripts of the product by their names."""
    folder = files("streampush.store.redis") / "lua"
    libraries = {one.name.removesuffix(".lua"): one.read_text("utf-8") for one in _lua(folder / "lib")}
    return {name: _whole(name, one.read_text("utf-8"), libraries) for one in _lua(folder) if (name := one.name[:-4])}


def _lua(folder: Traversable) -> list[Traversable]:
    return sorted((one for one in folder.iterdir() if one.name.endswith(".lua")), key=lambda one: one.name)


def _whole(name: str, body: str, libraries: dict[str, str]) -> Script:
    order: list[str] = []

    def take(text: str, behind: tuple[str, ...]) -> None:
        for needed in _needed(text):
            if needed in behind:
                raise ScriptFailed(f"{name}: the library {needed} needs itself")
            if needed not in order:
                take(libraries[needed], (*behind, needed))
                order.append(needed)

    take(body, ())
    text = "\n".join((PRELUDE, *only_needed([libraries[one] for one in order], body), body))
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _needed(text: str) -> list[str]:
    return [one for line in text.splitlines() if line.startswith(_NEEDS) for one in line.removeprefix(_NEEDS).split()]


class Scripts:
    """Runs scripts on the keys of one deployment. `prefix`: as in `streampush`, without braces or colon."""

    def __init__(
        self,
        redis: RedisLike,
        prefix: str,
        scripts: dict[str, Script] | None = None,
        new_epoch: Callable[[], str] | None = None,
    ) -> None:
        self.prefix = f"{{{prefix}}}:"
        self._redis = redis
        self._scripts = load_scripts() if scripts is None else scripts
        self._new_epoch = new_epoch

    def beginning(self, new_epoch: Callable[[], str]) -> Scripts:
        """The same, but a Redis that is new, or was emptied, is given an epoch before a script runs that asks for it."""
        return Scripts(self._redis, self.prefix[1:-2], self._scripts, new_epoch)

    def over(self, redis: RedisLike) -> Scripts:
        """The same by another connection."""
        return Scripts(redis, self.prefix[1:-2], self._scripts, self._new_epoch)

    async def run(self, name: str, *arguments: Any) -> Any:
        """The script's answer: lists, whole numbers, booleans, bytes (of texts, too). Raises Refused, StoreUnavailable."""
        answer = await self._run(name, arguments)
        if self._new_epoch is not None and _says(answer, _NOT_BEGUN):  # it has written nothing
            await self.run("begin", self._new_epoch(), LAYOUT)
            answer = await self._run(name, arguments)
        if isinstance(answer, Exception):
            raise self.error(name, answer)
        return msgpack.unpackb(answer, raw=True, strict_map_key=False) if isinstance(answer, bytes) else answer

    async def _run(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """As Redis answers; an error as a value."""
        script = self._scripts[name]
        packed: bytes = msgpack.packb(arguments, use_bin_type=False)  # Redis knows one type for texts and bytes
        answer = await self._redis.command("EVALSHA", script.digest, 1, self.prefix, packed)
        if _says(answer, "NOSCRIPT"):  # Redis has started anew, or was told to forget them
            answer = await self._redis.command("EVAL", script.text, 1, self.prefix, packed)
        return answer

    def error(self, name: str, error: Exception) -> Exception:
        """What an error of a script means: Refused, StoreUnavailable, or ScriptFailed."""
        text = str(error)
        if text.startswith(_REFUSED):
            code, _, detail = text.removeprefix(_REFUSED).partition(" ")
            return Refused(Code(int(code)), detail)
        trouble = trouble_of(text)
        return StoreUnavailable(trouble) if trouble else ScriptFailed(f"script {name}: {words_of(error)}")


def _says(answer: object, word: str) -> bool:
    return isinstance(answer, Exception) and str(answer).lstrip().startswith(word)


def words_of(error: Exception) -> str:
    """What Redis says, on one line, for logs. Where it does not know a command it goes on with what that was given, the password of
    AUTH too: that is left out."""
    return str(error).strip().partition(", with args")[0][:MAX_WORDS]


_TROUBLES = {
    "OOM": "Redis has no memory left (maxmemory)",
    "READONLY": "this Redis is a replica and takes no writes",
    "LOADING": "Redis is loading its data",
    "MISCONF": "Redis cannot save its data to disk, and takes no writes until it can",
    "BUSY": "Redis is busy with a script",
    "MASTERDOWN": "this Redis is a replica that has lost its master",
    "NOREPLICAS": "Redis has too few replicas to take writes (min-replicas-to-write)",
    "CLUSTERDOWN": "the Redis cluster is down",
    "NOAUTH": "Redis wants a password",
    "NOPERM": "the user of Redis may not do that",
}


def trouble_of(text: str) -> str:
    """What is the matter with Redis, for people; "": this error says that of a command, not of the server."""
    return _TROUBLES.get(text.split(" ", 1)[0], "")
