"""What must hold between settings, and within lists of them: pure functions of a Config."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Iterator

from streampush.config import SCOPES, Config, KeyConfig, Problem
from streampush.config_apps import app_errors
from streampush.protocol.terms import is_id
from streampush.redis_url import parse_url

MIN_ENVELOPE_ROOM = 16 * 1024
"""Bytes of a frame kept for what is around a payload: channel, ids, content type, headers."""

RESERVED_DESCRIPTORS = 68
"""File descriptors for everything that is no device: listeners, log, store, REST requests, file reloads. Connections to Apple, and
those that are refused and told when to come back, come on top."""

MAX_CHANNEL_BYTES = 255

MAX_SOCKET_PATH = 90
"""Bytes. The kernel takes 107; a new socket has a longer name until it replaces the old one (`handover.place`)."""

SHARED_BACKEND = "redis"
"""The store that several processes can have together."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PLACEHOLDER = re.compile(r"\{(.*?)\}")
_ALLOWED_PLACEHOLDERS = ("device", "user")

Found = Iterator[tuple[str, str]]
"""Pairs of a key and what is wrong with it."""


def check_rules(config: Config) -> list[Problem]:
    """Everything that is wrong or doubtful between settings that are each in range; no file is opened."""
    found = [Problem("error", config.file, key, text) for rule in _ERRORS for key, text in rule(config)]
    return found + [Problem("warning", config.file, key, text) for rule in _WARNINGS for key, text in rule(config)]


def envelope_room(config: Config) -> int:
    """Bytes that a frame needs around the largest payload, with the most headers."""
    publish = config.publish
    return max(MIN_ENVELOPE_ROOM, publish.max_headers_bytes + 16 * publish.max_headers + 4096)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches the address. Raises ValueError if it is none."""
    return ipaddress.ip_address(address).is_loopback


def is_unspecified(address: str) -> bool:
    """Whether it stands for all addresses of this machine. Raises ValueError if it is none."""
    return ipaddress.ip_address(address).is_unspecified


def fd_budget(config: Config, soft_limit: int) -> tuple[int, str | None]:
    """The connection cap that the file-descriptor limit allows, and a warning if that is less than configured.

    `soft_limit`: RLIMIT_NOFILE's soft value; negative (RLIM_INFINITY): no limit.
    """
    wanted = config.admission.max_connections
    reserved = RESERVED_DESCRIPTORS + config.admission.max_told + config.apns.max_connections * len(config.apns.apps)
    if config.listen.proxy_protocol != "off":
        reserved += config.listen.proxy_waiting
    room = soft_limit - reserved
    if soft_limit < 0 or room >= wanted:
        return wanted, None
    cap = max(1, room)
    needed = wanted + reserved
    return cap, (
        f"{config.file}: admission.max_connections: {wanted} connections do not fit the file-descriptor limit {soft_limit}, "
        f"the cap is lowered to {cap}; raise the limit with `ulimit -n {needed}` or LimitNOFILE={needed}"
    )


# --------------------------------------------------------------------------------------------------------------------- errors


def _tls_files(config: Config) -> Found:
    for name in ("certificate", "key", "client_ca"):
        if not getattr(config.tls, name):
            yield f"tls.{name}", "required, the path of a PEM file; `streampush init DIR` makes a set for development"


def _addresses(config: Config) -> Found:
    for key, address in (("listen.address", config.listen.address), ("rest.address", config.rest.address)):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            yield key, f"{address!r} is not an IPv4 or IPv6 address"
    same = config.rest.enabled and config.listen.port == config.rest.port != 0
    if same:
        yield "rest.port", f"{config.rest.port} is listen.port too, take another one"


def _proxies(config: Config) -> Found:
    listen = config.listen
    if listen.proxy_protocol != "off" and not listen.proxy_from:
        text = f"required with listen.proxy_protocol = {listen.proxy_protocol!r}: the addresses or networks of the proxies"
        yield "listen.proxy_from", text
    for network in listen.proxy_from:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            yield "listen.proxy_from", f"{network!r} is neither an address nor a network, such as 10.0.0.0/24 or 2001:db8::/64"


def _handover(config: Config) -> Found:
    path = config.node.handover
    if not path:
        return
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH:
        yield "node.handover", f"{path} has {size} bytes, allowed are {MAX_SOCKET_PATH} for the path of a Unix socket"
    if not hasattr(socket, "SO_PEERCRED"):
        yield (
            "node.handover",
            "this system does not say who is on the other side of a Unix socket; take sockets from a service manager",
        )


def _workers(config: Config) -> Found:
    workers, backend = config.node.workers, config.store.backend
    if workers and config.node.handover and backend == "sqlite":
        yield "node.handover", "not with node.workers and SQLite: the worker has its file, which no other process may have"
    if workers > 1 and backend != SHARED_BACKEND:
        text = f"{workers} workers need a store that they share, store.backend = {SHARED_BACKEND!r}"
        yield "node.workers", f"{text}; with {backend!r} there can be one"


def _heartbeat(config: Config) -> Found:
    beat = config.heartbeat
    if beat.misses == 1 and beat.reply_timeout > beat.interval / 2:
        half = beat.interval / 2
        yield "heartbeat.reply_timeout", f"{beat.reply_timeout:g} s, with heartbeat.misses = 1 allowed is at most {half:g} s"
    if beat.reply_timeout > beat.interval:
        yield "heartbeat.reply_timeout", f"{beat.reply_timeout:g} s, allowed is at most heartbeat.interval, {beat.interval:g} s"


def _reconnect(config: Config) -> Found:
    policy = config.reconnect
    if policy.backoff_initial > policy.backoff_max:
        text = f"{policy.backoff_initial:g} s, allowed is at most reconnect.backoff_max, {policy.backoff_max:g} s"
        yield "reconnect.backoff_initial", text


def _sizes(config: Config) -> Found:
    session, publish, store = config.session, config.publish, config.store.sized()
    room = envelope_room(config)
    largest = publish.max_payload + room
    if session.max_frame <= room:
        text = f"{session.max_frame} bytes leave no room for a payload beside {room} bytes of headers and envelope"
        yield "session.max_frame", f"{text}; publish.max_payload, {publish.max_payload} bytes, needs at least {largest} bytes"
    elif largest > session.max_frame:
        allowed = f"{session.max_frame - room} bytes, session.max_frame less {room} for headers and envelope"
        yield "publish.max_payload", f"{publish.max_payload} bytes, allowed are at most {allowed}"
    if session.send_buffer + largest > session.send_buffer_max:
        need = f"{session.send_buffer + largest} bytes, session.send_buffer and the largest message"
        yield "session.send_buffer_max", f"{session.send_buffer_max} bytes, allowed are at least {need}"
    if publish.max_payload > store.history_bytes:
        text = f"{store.history_bytes} bytes, allowed are at least publish.max_payload, {publish.max_payload} bytes"
        yield "store.history_bytes", text
    if store.history_bytes > store.max_bytes:
        text = f"{store.history_bytes} bytes, allowed are at most store.max_bytes, {store.max_bytes} bytes"
        yield "store.history_bytes", text


def _redis(config: Config) -> Found:
    store = config.store
    if store.backend != "redis":
        if store.url:
            yield "store.backend", f'"{store.backend}", but store.url names a Redis: set store.backend = "redis"'
        return
    try:
        address = parse_url(store.url)
    except ValueError as error:
        yield "store.url", f"{error}" if store.url else "required with store.backend = redis, as in redis://127.0.0.1:6379"
        return
    if not is_id(store.prefix):
        yield "store.prefix", f"{store.prefix!r}, allowed are 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ -"
    if address.password and store.password_file:
        yield "store.password_file", "there is a password in store.url as well, give one of them"
    for given, missing in (("certificate", "key"), ("key", "certificate")):
        if getattr(store, given) and not getattr(store, missing):
            yield f"store.{missing}", f"required with store.{given}"
    for name in ("ca", "certificate"):
        if getattr(store, name) and not address.tls:
            yield f"store.{name}", "of use only with TLS: rediss://"


def _rest_exposure(config: Config) -> Found:
    rest = config.rest
    if not rest.enabled:
        return
    for given, missing in (("certificate", "key"), ("key", "certificate")):
        if getattr(rest, given) and not getattr(rest, missing):
            yield f"rest.{missing}", f"required with rest.{given}"
    if _is_exposed(rest.address) and not rest.certificate and not rest.key:
        text = f"{rest.address} is reached from other machines: set rest.certificate and rest.key, or listen on 127.0.0.1"
        yield "rest.address", text


def _is_exposed(address: str) -> bool:
    try:
        return not is_loopback(address)
    except ValueError:
        return False  # no address: said elsewhere


def _rest_keys(config: Config) -> Found:
    names: set[str] = set()
    digests: set[str] = set()
    for number, key in enumerate(config.rest.keys):
        where = f"rest.keys[{number}]"
        yield from _rest_key(where, key)
        if key.name and key.name in names:
            yield f"{where}.name", f"{key.name!r} is the name of another key too"
        if key.sha256 and key.sha256 in digests:
            yield f"{where}.sha256", f"{key.name!r} is the same key as another one"
        names.add(key.name)
        digests.add(key.sha256)


def _rest_key(where: str, key: KeyConfig) -> Found:
    if not is_id(key.name):
        yield f"{where}.name", f"{key.name!r}, allowed are 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ -"
    if not _DIGEST.fullmatch(key.sha256):  # not shown: somebody may have put the key itself here
        yield f"{where}.sha256", f"{len(key.sha256)} characters that are no SHA-256 in hex, allowed are 64 hex digits"
    for scope in key.scopes:
        if scope not in SCOPES:
            yield f"{where}.scopes", f"{scope!r}, allowed are {', '.join(SCOPES)}"
    yield from _patterns(f"{where}.publish", key.publish, placeholders=False)


def _rights(config: Config) -> Found:
    yield from _patterns("delivery.subscribe", config.delivery.subscribe, placeholders=True)
    yield from _patterns("delivery.publish", config.delivery.publish, placeholders=True)
    for name, publisher in config.publishers.items():
        if not is_id(name):
            yield f"publishers.{name}", "the name must be 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ -"
        yield from _patterns(f"publishers.{name}.publish", publisher.publish, placeholders=False)


def _patterns(key: str, patterns: Iterable[str], *, placeholders: bool) -> Found:
    for pattern in patterns:
        size = len(pattern.encode())
        if not 1 <= size <= MAX_CHANNEL_BYTES:
            yield key, f"a pattern of {size} bytes, allowed are 1 to {MAX_CHANNEL_BYTES}"
        elif not pattern.isprintable() or " " in pattern:
            yield key, f"{pattern!r}: no channel has spaces or control characters in its name"
        for name in _PLACEHOLDER.findall(pattern):
            if not placeholders:
                yield key, f"{pattern!r}: {{{name}}} stands for a device's own id, which a publisher has not"
            elif name not in _ALLOWED_PLACEHOLDERS:
                yield key, f"{pattern!r}: {{{name}}} is unknown, allowed are {{device}} and {{user}}"


# ------------------------------------------------------------------------------------------------------------------- warnings


def _useless_keys(config: Config) -> Found:
    if config.rest.enabled and not config.rest.keys:
        yield "rest.keys", "no key: nobody can publish over REST"
    for number, key in enumerate(config.rest.keys):
        if "publish" in key.scopes and not key.publish:
            yield f"rest.keys[{number}].publish", f"{key.name!r} has scope publish and no channel that it may publish to"
    for name, publisher in config.publishers.items():
        if not publisher.publish:
            yield f"publishers.{name}.publish", "empty: this publisher may publish to no channel"


def _tight_sizes(config: Config) -> Found:
    encoded = config.publish.max_payload * 4 // 3 + 4096
    if config.rest.enabled and config.rest.max_body < encoded:
        text = f"{config.rest.max_body} bytes, a message of publish.max_payload as base64 takes {encoded}"
        yield "rest.max_body", text
    largest = config.publish.max_payload + envelope_room(config)
    if config.delivery.receive_window_bytes < largest:
        text = f"{config.delivery.receive_window_bytes} bytes, the largest message takes {largest}"
        yield "delivery.receive_window_bytes", text


def _open_proxies(config: Config) -> Found:
    listen = config.listen
    if listen.proxy_protocol == "off":
        if listen.proxy_from:
            yield "listen.proxy_from", 'of no use while listen.proxy_protocol is "off"'
        return
    for network in listen.proxy_from:
        if network.endswith("/0"):
            yield "listen.proxy_from", f"{network} is everybody: each of them can claim any address"


def _steered_proxies(config: Config) -> Found:
    listen = config.listen
    if listen.steering == "address" and listen.proxy_protocol != "off":
        yield "listen.steering", "all connections come from the addresses of the proxies: few workers would get them all"


def _quick_clients(config: Config) -> Found:
    beat = config.heartbeat
    if beat.min_ping_interval > beat.interval + beat.reply_timeout:
        silence = beat.interval + beat.reply_timeout
        text = f"{beat.min_ping_interval:g} s, clients that ping on a silence of {silence:g} s get code 2008"
        yield "heartbeat.min_ping_interval", text


_ERRORS = (
    _tls_files,
    _handover,
    _addresses,
    _proxies,
    _workers,
    _heartbeat,
    _reconnect,
    _sizes,
    _redis,
    _rest_exposure,
    _rest_keys,
    _rights,
    app_errors,
)
_WARNINGS = (_useless_keys, _open_proxies, _steered_proxies, _tight_sizes, _quick_clients)
