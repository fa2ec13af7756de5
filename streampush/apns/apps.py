"""The apps that pushes are for: where their pushes go, as whom, and with what by default.

An `App` is a value, made whole from the settings and the files that they name. `Apps` holds those in force. A reload makes all of
them anew and puts the good ones in the place of the old; what is broken leaves the old one in force, whole. Who asks for the app at
each try of a push has nothing else to do: what is under way ends as it began, and the next try goes the new way.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from cryptography.hazmat.primitives import serialization

from streampush.apns.errors import BadCredential
from streampush.apns.key_files import MAX_TRUST_FILE, read_file
from streampush.apns.provider_token import ProviderToken, ProviderTokens
from streampush.apns.push import PUSH_TYPES
from streampush.apns.push_certificate import PushCertificate, load_push_certificate
from streampush.apns.signing_key import SigningKey, load_signing_key
from streampush.apns.tls import ClientCredential, Http2Tls
from streampush.config import ApnsAppConfig, Config, Problem
from streampush.config_files import check_authorities
from streampush.errors import ConfigError

HOSTS: Mapping[str, str] = MappingProxyType({"production": "api.push.apple.com", "sandbox": "api.sandbox.push.apple.com"})
"""Apple's, by environment."""

EXPIRY_WARNING = 30
"""Days before its end from which a certificate is warned of: to renew one takes a person with an account at Apple's."""

_FILE_OF_APPLE = re.compile(r"AuthKey_([A-Z0-9]{10})\.p8$")

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Route:
    """Where pushes go, and as whom: what one pool of connections is for. Apps may share one.

    `trust`: PEM of the CAs that sign the server's certificate, None: those of the system.
    """

    host: str
    port: int
    trust: bytes | None = field(repr=False)
    credential: SigningKey | PushCertificate

    @property
    def authority(self) -> str:
        """Of the requests: RFC 9110 section 7.2, which leaves out the port of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"

    def tls(self) -> Http2Tls:
        """For connections on it. Raises BadCredential."""
        if isinstance(self.credential, SigningKey):
            return Http2Tls(self.host, trust=self.trust)
        pem = serialization.Encoding.PEM
        chain = b"".join(certificate.public_bytes(pem) for certificate in self.credential.chain)
        key = self.credential.key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return Http2Tls(self.host, ClientCredential(chain, key), self.trust)


@dataclass(frozen=True, slots=True)
class App:
    """An app of the configuration with what its files hold. `topics`: all that it may push to."""

    settings: ApnsAppConfig
    route: Route
    topics: frozenset[str]

    @property
    def name(self) -> str:
        """What it is called in requests, logs and metrics."""
        return self.settings.name


def read_apps(config: Config, wall: float, *, expired: Severity = "error") -> tuple[dict[str, App], list[Problem]]:
    """The apps by name with everything wrong about them; one with an error is not among them.

    `wall`: Unix seconds. `expired`: what a certificate past its end is. Opens the files of the apps, and nothing else.
    """
    apps: dict[str, App] = {}
    found: list[Problem] = []
    keys: dict[tuple[str, str], tuple[SigningKey, str]] = {}
    for number, settings in enumerate(config.apns.apps):
        reading = _Reading(config, f"apns.apps[{number}]", settings, wall, expired)
        app = reading.app()
        if app is not None and isinstance(app.route.credential, SigningKey):
            key = app.route.credential
            first, owner = keys.setdefault((key.team_id, key.key_id), (key, app.name))
            if first != key:
                reading.problem("key", f"{settings.key} is not the key that app {owner!r} has under the same key id")
        found += reading.found
        if app is not None and not reading.failed:
            apps[app.name] = app
    return apps, found


class _Reading:
    """Of one app."""

    def __init__(self, config: Config, where: str, settings: ApnsAppConfig, wall: float, expired: Severity) -> None:
        self._config = config
        self._where = where
        self._settings = settings
        self._wall = wall
        self._expired = expired
        self.found: list[Problem] = []

    def problem(self, name: str, text: str, severity: Severity = "error") -> None:
        self.found.append(Problem(severity, self._config.file, f"{self._where}.{name}", text))

    @property
    def failed(self) -> bool:
        return any(problem.severity == "error" for problem in self.found)

    def app(self) -> App | None:
        """None if it cannot be made at all."""
        settings = self._settings
        credential = self._credential()
        trust = self._trust()
        if credential is None or self.failed:
            return None
        topics = frozenset({settings.bundle_id, *settings.topics})
        if isinstance(credential, PushCertificate):
            self._check_certificate(credential, topics)
        route = Route(settings.host or HOSTS[settings.environment], settings.port, trust, credential)
        try:
            route.tls()
        except BadCredential as error:
            self.problem("certificate" if settings.certificate else "host", str(error))
        return App(settings, route, topics)

    def _credential(self) -> SigningKey | PushCertificate | None:
        settings = self._settings
        try:
            if settings.certificate:
                return load_push_certificate(settings.certificate, settings.key)
            key = load_signing_key(settings.key, settings.team_id, settings.key_id)
        except ConfigError as error:
            name = error.key or ("key" if error.file == settings.key else "certificate")
            self.problem(name, error.problem if error.key else f"{error.file} {error.problem}")
            return None
        named = _FILE_OF_APPLE.search(settings.key)
        if named and named[1] != settings.key_id:
            text = f"{settings.key_id}, but the file's name says {named[1]}: Apple refuses what is signed under another key's id"
            self.problem("key_id", text, "warning")
        return key

    def _trust(self) -> bytes | None:
        path = self._settings.ca
        if not path:
            return None
        now = dt.datetime.fromtimestamp(self._wall, dt.UTC)
        self.found += check_authorities(self._config, f"{self._where}.ca", path, now)
        if self.failed:
            return None
        try:
            return read_file(path, private=False, limit=MAX_TRUST_FILE)
        except ConfigError as error:
            self.problem("ca", f"{error.file} {error.problem}")
            return None

    def _check_certificate(self, certificate: PushCertificate, topics: Iterable[str]) -> None:
        path, sandbox = self._settings.certificate, self._settings.environment == "sandbox"
        days = certificate.days_left(self._wall)
        if days <= 0:
            self.problem("certificate", f"{path}: {certificate.problem('', sandbox=sandbox, wall=self._wall)}", self._expired)
            return
        said = {certificate.problem(topic, sandbox=sandbox, wall=self._wall): None for topic in sorted(topics)}
        for text in filter(None, said):
            self.problem("certificate", f"{path}: {text}")
        for topic in sorted(topics):
            if any(rules.key_only and topic.endswith(rules.suffix) for rules in PUSH_TYPES.values()):
                self.problem("topics", f"{topic}: Apple takes such pushes with a .p8 key only, not with a certificate")
        if days < EXPIRY_WARNING:
            self.problem("certificate", f"{path} expires in {int(days)} days: renew it in Apple's developer account", "warning")


class Apps:
    """The apps in force, and their provider tokens. `wall`: Unix seconds.

    Raises ConfigError for the first app that cannot be used. A certificate past its end is no reason for that: its pushes wait.
    """

    def __init__(self, config: Config, wall: Callable[[], float]) -> None:
        self._config = config
        self._wall = wall
        self._apps, found = read_apps(config, wall(), expired="warning")
        for problem in found:
            if problem.severity == "error":
                raise ConfigError(problem.file, problem.key, problem.text)
        self._by_topic: dict[tuple[str, bool], App] = {}
        self._tokens = ProviderTokens()
        self._watchers: list[Callable[[], None]] = []
        self._settle()

    def __len__(self) -> int:
        return len(self._apps)

    @property
    def all(self) -> Mapping[str, App]:
        """By name, as they are now."""
        return MappingProxyType(self._apps)

    def named(self, name: str) -> App | None:
        """The app of this name, None if there is none (any more)."""
        return self._apps.get(name)

    def of_token(self, topic: str, sandbox: bool) -> App | None:
        """The app that a device token belongs to, which was registered with this topic and environment."""
        return self._by_topic.get((topic, sandbox))

    def provider_token(self, route: Route) -> ProviderToken | None:
        """The token to push with on this route, shared by all its connections; None: its certificate says who pushes.

        Raises KeyError for a route that is no app's any more.
        """
        key = route.credential
        return self._tokens.of(key) if isinstance(key, SigningKey) else None

    def routes(self) -> frozenset[Route]:
        """Those in use: what a pool has another one of is for nobody any more."""
        return frozenset(app.route for app in self._apps.values())

    def watch(self, reloaded: Callable[[], None]) -> None:
        """`reloaded` is called after each reload, whatever came of it: what Apple refused before may have been mended there."""
        self._watchers.append(reloaded)

    def reload(self, config: Config | None = None) -> list[Problem]:
        """Reads the files of all apps again, with the apps of another configuration if one is given; gives what is wrong.

        An app with an error stays as it was, or is not there if it is new; one that the configuration has no more is gone. A key
        that stays the same keeps its provider token. Blocks for a few small files on the local disk.
        """
        config = config or self._config
        apps, found = read_apps(config, self._wall())
        wanted = {settings.name for settings in config.apns.apps}
        kept = {name: app for name, app in self._apps.items() if name in wanted and name not in apps}
        self._config = config
        self._apps = {**kept, **apps}
        self._settle()
        for reloaded in self._watchers:
            reloaded()
        return found

    def _settle(self) -> None:
        """What is found by something else than the name. Where an app that was kept and a new one claim the same, it is the new
        one's: it comes last."""
        keys = [app.route.credential for app in self._apps.values()]
        self._tokens.reload(key for key in keys if isinstance(key, SigningKey))
        self._by_topic = {
            (topic, app.settings.environment == "sandbox"): app for app in self._apps.values() for topic in sorted(app.topics)
        }
