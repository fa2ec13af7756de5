"""Where Redis is, from a URL.

redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]
rediss://…                                            the same over TLS
redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT]…/SERVICE[/DB]
rediss+sentinel://…                                   sentinels and Redis over TLS
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

PORT = 6379
SENTINEL_PORT = 26379
MAX_HOSTS = 16
"""Sentinels that are named: five are many, more is a mistake."""

_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """`hosts`: of Redis itself, one; or with `service` of the sentinels that know where the service's master is."""

    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    service: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    database: int = 0

    def __str__(self) -> str:
        """For logs and errors: without user and password."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        scheme = ("rediss" if self.tls else "redis") + ("+sentinel" if self.service else "")
        service = f"/{self.service}" if self.service else ""
        database = f"/{self.database}" if self.database else ""
        return f"{scheme}://{hosts}{service}{database}"


def parse_url(url: str) -> RedisAddress:
    """Raises ValueError, whose text has nothing of the URL's user and password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("not a URL") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"must begin with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    if parts.query or parts.fragment:
        raise ValueError("nothing may follow the path")
    sentinel = parts.scheme.endswith("+sentinel")
    who, _, where = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    hosts = tuple(_host(one, SENTINEL_PORT if sentinel else PORT) for one in where.split(","))
    if len(hosts) > (MAX_HOSTS if sentinel else 1):
        raise ValueError(f"{len(hosts)} hosts; one, or with redis+sentinel:// at most {MAX_HOSTS}")
    path = [unquote(part) for part in parts.path.split("/")[1:] if part]
    service = ""
    if sentinel:
        if not path:
            raise ValueError("the name of the service is missing behind the sentinels, as in redis+sentinel://host/mymaster")
        service = path.pop(0)
    return RedisAddress(hosts, parts.scheme.startswith("rediss"), service, unquote(user), unquote(password), _database(path))


def _host(text: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise ValueError("a port must be a number from 1 to 65535") from None
    if not parts.hostname:
        raise ValueError("a host is missing")
    if port == 0:
        raise ValueError("a port must be a number from 1 to 65535")
    return parts.hostname, port or default


def _database(path: list[str]) -> int:
    if not path:
        return 0
    if len(path) > 1 or not path[0].isascii() or not path[0].isdigit() or int(path[0]) > 15:
        raise ValueError("behind the host only the number of a database may stand, 0 to 15")
    return int(path[0])
