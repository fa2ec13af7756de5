"""The store in Redis with everything that belongs to it, from the start of the process to its end; see store.keeping.Keeping."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IOpenSSLClientConnectionCreator
from twisted.internet.ssl import TLSVersion, optionsForClientTLS
from twisted.logger import Logger
from twisted.python.failure import Failure

from streampush.config import Config, StoreConfig
from streampush.config_files import read_password
from streampush.errors import ConfigError, StoreUnavailable
from streampush.protocol.terms import Durability
from streampush.push.bus import Hearing
from streampush.push.shared_rates import RateStore
from streampush.push.values import StoreStatus
from streampush.redis_url import parse_url
from streampush.store.keeping import StatusWatch, max_cursors
from streampush.store.redis.bus import BusMetrics, RedisBus
from streampush.store.redis.clock import RedisClock
from streampush.store.redis.connecting import Connector, RedisConnection, Unreachable
from streampush.store.redis.link import LinkMetrics, RedisLink
from streampush.store.redis.rates import RedisRates
from streampush.store.redis.replication import Replication
from streampush.store.redis.scripts import LAYOUT, Scripts, load_scripts, words_of
from streampush.store.redis.store import RedisStore
from streampush.tls_clients import UnusablePem, own_options, trust_in

SWEEP_INTERVAL = 1.0
"""Seconds between two sweeps of this node; those of others sweep as well."""

WAIT_SHARE = 0.8
"""Of `store.timeout`: how long replicas may take to confirm a publication."""

OLDEST = 7
"""The first version of Redis whose scripts do what ours need."""

_FSYNCS = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
"""Settings of a Redis that answers a write when it is on its disk. The last one, if it is yes, takes `always` back for as long as
Redis rewrites its file."""


class RedisMetrics(LinkMetrics, Protocol):
    """What is shown of the store."""

    def redis_failed_over(self) -> None:
        """Redis has another history than before: a replica was promoted, or it was started anew."""

    def redis_clock(self, ahead: float) -> None:
        """By how many seconds this machine's clock is ahead of Redis's."""

    def store_holds(self, status: StoreStatus) -> None:
        """How much it holds."""

    def store_watched(self, works: Callable[[], bool], waiting: Callable[[], int]) -> None:
        """Who knows whether it works, and how many operations wait for it."""


class RedisKeeping:
    """Of the store in Redis. Raises ConfigError if files do not fit."""

    _log = Logger(namespace="streampush.store")

    def __init__(
        self,
        reactor: Any,
        config: Config,
        wall_ms: Callable[[], int],
        new_epoch: Callable[[], str],
        metrics: RedisMetrics,
        bus_metrics: BusMetrics,
        run: str,
    ) -> None:
        settings = config.store
        self._reactor = reactor
        self._config = config
        self._metrics = metrics
        self._new_epoch = new_epoch
        self._scripts = load_scripts()
        self._connector = make_connector(reactor, config)
        self._sweep: IDelayedCall | None = None
        self._clock = RedisClock(wall_ms, metrics.redis_clock)
        self._warned: set[str] = set()
        self._status = StatusWatch(reactor, self._look)
        self.link = self._make_link(metrics)
        self._writing = self._make_link(metrics) if settings.replicas else None
        self._epoch = b""  # when it was looked at last
        scripts = Scripts(self.link, settings.prefix, self._scripts)
        self._beginning = scripts.beginning(new_epoch)
        self.store = self._make_store(scripts, wall_ms, new_epoch)
        self.bus = RedisBus(
            reactor,
            self._connector,
            self.link,
            self._beginning,
            bus_metrics,
            random.random,
            run=run,
            token=new_epoch(),
            durability=lambda: self.store.durability,
        )
        self.rates: RateStore | None = RedisRates(self.link, scripts, wall_ms)
        metrics.store_watched(lambda: self.link.connected, lambda: self.link.waiting + self.store.more_waiting)

    def _make_link(self, metrics: LinkMetrics) -> RedisLink:
        settings = self._config.store
        return RedisLink(
            self._reactor,
            self._connector,
            metrics,
            random.random,
            prepare=self._prepare,
            timeout=settings.timeout,
            wait=settings.publish_timeout,
            max_queue=settings.max_queue,
        )

    def _make_store(self, scripts: Scripts, wall_ms: Callable[[], int], new_epoch: Callable[[], str]) -> RedisStore:
        settings, delivery = self._config.store, self._config.delivery
        replication = None
        if self._writing is not None:
            # WAIT is answered when it is over: the link that it goes over must not take that for a Redis that hangs
            replication = Replication(self._writing, replicas=settings.replicas, timeout=settings.timeout * WAIT_SHARE)
        return RedisStore(
            scripts,
            settings,
            wall_ms,
            new_epoch,
            lambda call: self._reactor.callLater(0, call),
            max_dead_letters=delivery.max_dead_letters,
            max_cursors=max_cursors(delivery),
            replication=replication,
            ahead_ms=lambda: self._clock.ahead_ms,
        )

    def hear(self, hearing: Hearing) -> None:
        """See store.keeping.Keeping."""
        self.bus.start(hearing)

    def start(self) -> None:
        """Returns at once: a node whose Redis is away runs, and is not ready."""
        self.link.start()
        if self._writing is not None:
            self._writing.start()
        self._status.start()
        self._sweep = self._reactor.callLater(SWEEP_INTERVAL, self._sweep_once)

    async def _look(self) -> None:
        await self._look_at_epoch()
        self._metrics.store_holds(await self.store.status())
        asked_ms = self._clock.wall_ms()
        answer = await self.link.command("INFO", "server", "memory")
        if isinstance(answer, bytes):
            about = _facts(answer)
            self._clock.compare(about, asked_ms)
            self._look_at_policy(about)

    async def _look_at_epoch(self) -> None:
        """A Redis that is emptied keeps its connections: nothing else says that logs begin anew, and that nobody is present."""
        epoch = await _epoch(self._beginning)
        before, self._epoch = self._epoch, epoch
        if not before or before == epoch:
            return
        self._log.error("Redis was emptied, or holds another history now: what is lost is told to those who had it (code 3010)")
        self.bus.look_again()
        about = await self.link.command("INFO", "replication")
        if isinstance(about, bytes):  # else it is noted with the next connection
            await self._note_history(self._beginning, _facts(about))

    async def stop(self) -> None:
        """Everything was stored when it was answered; what was not is not."""
        self._status.stop()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        await self.bus.stop()
        if self._writing is not None:
            await self._writing.stop()
        await self.link.stop()

    def reason(self, now: float) -> str:
        """A check for observe.health."""
        for link in (self.link, self._writing):
            if link is not None and not link.connected:
                return f"Redis is away: {link.reason}"
        return self.bus.reason(now)

    # -------------------------------------------------------------------------------------------------------------- inside

    async def _prepare(self, connection: RedisConnection) -> None:
        """Looks whether this Redis is one that we can use, and gives it our scripts."""
        asked_ms = self._clock.wall_ms()
        about = _facts(await _answer(connection, "INFO", "server"))
        version = about.get("redis_version", "")
        major = version.partition(".")[0]
        if not major.isdigit() or int(major) < OLDEST:
            text = f"{connection.place} is Redis {version or 'of an unknown version'}, {OLDEST}.0 or later is needed"
            raise Unreachable(text, refused=True)
        self._clock.compare(about, asked_ms)
        self._look_at_policy(_facts(await _answer(connection, "INFO", "memory")))
        # scripts publish what they have written: one that may not would end in the middle
        await _answer(connection, "PUBLISH", f"{{{self._config.store.prefix}}}:node:", "")
        await self._look_at_layout(connection)
        await self._look_at_disk(connection)
        for script in self._scripts.values():
            await _answer(connection, "SCRIPT", "LOAD", script.text)
        await self._look_at_history(connection)
        self._epoch = await _epoch(self._scripts_over(connection))
        self.bus.look_again()

    def _look_at_policy(self, about: dict[str, str]) -> None:
        """Whether this Redis may lose what it has. (Policies of keys that expire, `volatile-...`, take only buckets of rates.)"""
        policy = about.get("maxmemory_policy", "")
        if policy.startswith("allkeys"):
            self._warn(
                f"this Redis throws keys away when its memory is full (maxmemory-policy {policy}): messages would be lost and "
                "nobody told; set it to noeviction"
            )

    async def _look_at_history(self, connection: RedisConnection) -> None:
        """Whether the data is still of one piece: a replica that was promoted, or a Redis that was started anew, may lack what was
        written last. Then a new epoch begins, which lets devices be told."""
        facts = _facts(await _answer(connection, "INFO", "replication"))
        if await self._note_history(self._scripts_over(connection), facts):
            self._metrics.redis_failed_over()
            self._log.error(
                "this Redis goes on from what another one had, or it itself before a start: what was not on its disk or with its"
                " replicas then is lost, and whoever had it is told (code 3010); {place}",
                place=connection.place,
            )

    async def _note_history(self, scripts: Scripts, facts: dict[str, str]) -> bool:
        """Notes in the store what history it is of; whether it was of another one."""
        return bool(await scripts.run("replication", facts.get("master_replid", ""), self._new_epoch()))

    def _scripts_over(self, connection: RedisConnection) -> Scripts:
        return Scripts(connection, self._config.store.prefix, self._scripts, self._new_epoch)

    async def _look_at_layout(self, connection: RedisConnection) -> None:
        """Leaves alone what a later version of this program has laid out in another way."""
        found = await _answer(connection, "HGET", f"{{{self._config.store.prefix}}}:totals", "layout")
        if found is not None and int(found) > LAYOUT:
            text = f"what {connection.place} holds is of a newer streampush (layout {int(found)}, this one knows {LAYOUT})"
            raise Unreachable(text, refused=True)

    async def _look_at_disk(self, connection: RedisConnection) -> None:
        """What an answer of this Redis is worth, as far as it says: LOCAL_FSYNC if each write is on its disk before."""
        if self._writing is not None:
            return
        answers = [await connection.command("CONFIG", "GET", name) for name in _FSYNCS]
        found = [bytes(one[1]).decode() for one in answers if isinstance(one, list) and len(one) == 2]
        self.store.durability = Durability.LOCAL_FSYNC if found == list(_FSYNCS.values()) else Durability.MEMORY

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._log.warn("{problem}", problem=text)

    def _sweep_once(self) -> None:
        self._sweep = self._reactor.callLater(SWEEP_INTERVAL, self._sweep_once)
        if self.link.connected:
            sweeping = Deferred.fromCoroutine(self.store.sweep())
            sweeping.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if not isinstance(failure.value, StoreUnavailable):  # that is known already
            self._log.failure("sweeping the store failed", failure=failure)


def make_connector(reactor: Any, config: Config) -> Connector:
    """For the Redis of the settings. Raises ConfigError."""
    settings = config.store
    address = parse_url(settings.url)  # was checked with the settings
    password = ""
    if settings.password_file:
        try:
            password = read_password(settings.password_file)
        except ValueError as error:
            raise ConfigError(config.file, "store.password_file", str(error)) from None
    return Connector(reactor, address, password=password, tls=_tls(config) if address.tls else None)


def _tls(config: Config) -> Callable[[str], IOpenSSLClientConnectionCreator]:
    """Makes what TLS to a host needs; what is in the files is tried now. Raises ConfigError."""
    settings = config.store
    trust, own = _read(config, "store.ca", settings.ca), _own(config, settings)

    def make(host: str) -> IOpenSSLClientConnectionCreator:
        options = dict(own)  # Twisted writes into it
        roots = None if trust is None else trust_in("ca", trust)
        creator: IOpenSSLClientConnectionCreator = optionsForClientTLS(host, roots, extraCertificateOptions=options)
        return creator

    try:
        make("localhost")
    except (UnusablePem, ValueError, SSL.Error) as error:
        raise ConfigError(config.file, "store.ca", f"TLS cannot be set up with it: {error}") from error
    return make


def _own(config: Config, settings: StoreConfig) -> dict[str, object]:
    options: dict[str, object] = {"raiseMinimumTo": TLSVersion.TLSv1_2}
    certificate, key = _read(config, "store.certificate", settings.certificate), _read(config, "store.key", settings.key)
    if certificate is not None and key is not None:
        try:
            options |= own_options(certificate, key)
        except UnusablePem as error:
            raise ConfigError(config.file, "store.certificate", str(error)) from error
    return options


def _read(config: Config, key: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(config.file, key, f"{path} cannot be read: {error.strerror}") from error


async def _epoch(scripts: Scripts) -> bytes:
    """Which life of the store this is; begins one where there is none."""
    epoch, _ = await scripts.run("tops", [])
    return bytes(epoch)


async def _answer(connection: RedisConnection, *parts: str) -> Any:
    """What Redis says to a command. Raises Unreachable if that is an error."""
    answer = await connection.command(*parts)
    if isinstance(answer, Exception):
        raise Unreachable(f"{connection.place} refuses {parts[0]}: {words_of(answer)}", refused=True)
    return answer


def _facts(info: bytes) -> dict[str, str]:
    """What INFO says, by name."""
    pairs = (line.partition(":") for line in info.decode(errors="replace").splitlines() if not line.startswith("#"))
    return {name: value.strip() for name, colon, value in pairs if colon}
