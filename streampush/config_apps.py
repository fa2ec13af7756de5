"""What must hold for `[apns]` and its apps: pure functions of a Config. What their files hold is for `apns.apps` to say."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from streampush.config import ApnsAppConfig, Config

APPLES_PORTS = (443, 2197)

MAX_BUNDLE_ID = 155
"""Characters. Apple's limit."""

MAX_TOPIC = 255
"""Characters: a bundle id and the longest suffix of Apple's, with room."""

MAX_WORD = 255
"""Characters of a sound or category: more than any has, and little of a push's 4096 bytes."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOPIC = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_APPLE_ID = re.compile(r"[A-Z0-9]{10}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")

Found = Iterator[tuple[str, str]]
"""Pairs of a key and what is wrong with it."""


def app_errors(config: Config) -> Found:
    """Everything wrong with `[apns]`, of settings that are each in range."""
    names: set[str] = set()
    owners: dict[tuple[str, str], str] = {}
    for number, app in enumerate(config.apns.apps):
        where = f"apns.apps[{number}]"
        yield from _identity(where, app)
        yield from _credential(where, app)
        yield from _server(where, app)
        yield from _words(where, app)
        if app.device_rest > app.device_max_rest:
            yield f"{where}.device_rest", f"{app.device_rest:g} s is above device_max_rest, {app.device_max_rest:g} s"
        if app.name and app.name in names:
            yield f"{where}.name", f"{app.name!r} is the name of another app too"
        names.add(app.name)
        yield from _topics(where, app, owners)
    yield from _proxy(config)


def split_place(place: str) -> tuple[str, int]:
    """Host and port of "host:port"; an IPv6 address stands in brackets. Raises ValueError for what is none."""
    host, separator, port = place.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif not is_host(host) or ":" in host:
        raise ValueError("no host")
    if not separator or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("no port")
    return host, int(port)


def is_topic(text: str) -> bool:
    """Whether it is a bundle id in its form, perhaps with a suffix of Apple's. Its length is not looked at."""
    return _TOPIC.fullmatch(text) is not None


def is_apple_id(text: str) -> bool:
    """Whether it may be a Team ID or a Key ID of Apple's."""
    return _APPLE_ID.fullmatch(text) is not None


def is_host(text: str) -> bool:
    """Whether it is a DNS name or an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST.fullmatch(text) is not None
    return True


def _identity(where: str, app: ApnsAppConfig) -> Found:
    if not _NAME.fullmatch(app.name):
        yield f"{where}.name", f"{app.name!r}, allowed are 1 to 64 characters of A-Z a-z 0-9 . _ -"
    if not app.bundle_id:
        yield f"{where}.bundle_id", "required, the app's bundle id, such as com.example.shop"
    elif len(app.bundle_id) > MAX_BUNDLE_ID:
        yield f"{where}.bundle_id", f"{len(app.bundle_id)} characters, allowed are at most {MAX_BUNDLE_ID}"
    elif not is_topic(app.bundle_id):
        yield f"{where}.bundle_id", f"{app.bundle_id!r} is no bundle id: letters, digits, - and _ in parts between single dots"


def _credential(where: str, app: ApnsAppConfig) -> Found:
    """Which of key and certificate there is. What else is missing is not said when that is not clear."""
    if not app.key and not app.certificate:
        yield f"{where}.key", "required: Apple's .p8 file, with team_id and key_id; or a certificate"
    elif app.certificate:
        for name in ("team_id", "key_id"):
            if getattr(app, name):
                text = "belongs to a .p8 key, and with a certificate there is none: take out one or the other"
                yield f"{where}.{name}", text
    else:
        yield from _apples_id(f"{where}.team_id", app.team_id, "the Team ID, in the membership details at Apple's")
        yield from _apples_id(f"{where}.key_id", app.key_id, "the Key ID, which is in the name of the file: AuthKey_KEYID.p8")


def _apples_id(key: str, value: str, which: str) -> Found:
    if not value:
        yield key, f"required with a .p8 key: {which}"
    elif not is_apple_id(value):
        yield key, f"{value!r} is not 10 capital letters and digits: {which}"


def _server(where: str, app: ApnsAppConfig) -> Found:
    if app.host and not is_host(app.host):
        yield f"{where}.host", f"{app.host!r} is neither a host name nor an IP address"
    if not app.host and app.port not in APPLES_PORTS:
        yield f"{where}.port", f"port {app.port}, Apple listens on {' and '.join(map(str, APPLES_PORTS))} only"


def _words(where: str, app: ApnsAppConfig) -> Found:
    for name in ("sound", "category"):
        word = getattr(app, name)
        if len(word) > MAX_WORD or not word.isprintable():
            yield f"{where}.{name}", f"{len(word)} characters, allowed are at most {MAX_WORD}, printable"


def _topics(where: str, app: ApnsAppConfig, owners: dict[tuple[str, str], str]) -> Found:
    """A device token says its topic and environment, and no more: they tell which app it is of."""
    for key, topic in ((f"{where}.bundle_id", app.bundle_id), *((f"{where}.topics", topic) for topic in app.topics)):
        if key.endswith("topics") and (len(topic) > MAX_TOPIC or not is_topic(topic)):
            yield key, f"{topic!r} is no topic: a bundle id, perhaps with a suffix of Apple's, of at most {MAX_TOPIC} characters"
            continue
        owner = owners.setdefault((topic, app.environment), app.name)
        if topic and (owner != app.name or (key.endswith("topics") and topic == app.bundle_id)):
            yield key, f"{topic} in {app.environment} belongs to app {owner!r} already"


def _proxy(config: Config) -> Found:
    apns = config.apns
    if apns.proxy:
        try:
            split_place(apns.proxy)
        except ValueError:  # not shown: somebody may have put a password in it
            yield "apns.proxy", "must be host:port, without a scheme; user and password have settings of their own"
    if apns.proxy_user and not apns.proxy:
        yield "apns.proxy", "required with apns.proxy_user"
    if ":" in apns.proxy_user or not apns.proxy_user.isprintable():
        yield "apns.proxy_user", "cannot have a colon or a control character"
    if apns.proxy_password_file and not apns.proxy_user:
        yield "apns.proxy_user", "required with apns.proxy_password_file"
