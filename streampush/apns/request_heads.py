"""The field blocks of pushes. What many pushes have in common is encoded once; what differs is put between and behind it.

Source: Apple, "Sending notification requests to APNs"; RFC 9113 section 8.3 (pseudo-header fields first), RFC 7541 section 6.2.3:
the device token and the provider token are literals that enter no table, neither ours nor that of somebody in between.
"""

from __future__ import annotations

from streampush.apns.http2 import hpack
from streampush.apns.provider_token import ProviderToken
from streampush.apns.push import MAX_COLLAPSE_ID, ApnsPush

MAX_CACHED = 1000
"""Beginnings that are kept, 400 bytes each. An app has a few topics, each with some push types and priorities."""

_PATH = b"/3/device/"
_PATH_NAME = hpack.name_prefix(b":path", never_indexed=True)
_APNS_ID = hpack.name_prefix(b"apns-id") + hpack.integer(36, 7)
_EXPIRATION = hpack.name_prefix(b"apns-expiration")
_COLLAPSE_ID = tuple(hpack.name_prefix(b"apns-collapse-id") + hpack.integer(size, 7) for size in range(MAX_COLLAPSE_ID + 1))
"""By the length of the value."""


class RequestHeads:
    """Blocks for one host and one credential. `authority`: the host, with its port if it is not 443. `token` None: the connection's
    certificate says who pushes.

    `stamp` grows whenever pushes begin to carry another provider token.
    """

    __slots__ = ("_bearer", "_epoch", "_fields", "_last_expiration", "_paths", "_pseudo", "_token", "stamp")

    def __init__(self, authority: str, token: ProviderToken | None) -> None:
        self._pseudo = hpack.block([(b":method", b"POST"), (b":scheme", b"https"), (b":authority", authority.encode())])
        self._paths: dict[int, bytes] = {}
        self._fields: dict[tuple[str, str, int], bytes] = {}
        self._last_expiration = -1, b""
        self._token = token
        self._bearer = b""
        self._epoch = -1
        self.stamp = 0

    @property
    def token(self) -> ProviderToken | None:
        """Whose token the pushes carry."""
        return self._token

    def use(self, token: ProviderToken | None) -> None:
        """The credential is this one from now on."""
        self._token = token
        self._bearer = b""
        self._epoch = -1
        self._fields.clear()
        self.stamp += 1

    def refresh(self, now: float, wall: float) -> None:
        """A new provider token if it is time for one. To be called before the first block, and every few seconds."""
        token = self._token
        if token is None:
            return
        self._bearer = token.bearer(now, wall)
        if token.epoch != self._epoch:
            self._epoch = token.epoch
            self._fields.clear()
            self.stamp += 1

    def expired(self, stamp: int, now: float, wall: float) -> float:
        """Apple called the token expired that a block of this stamp carried; seconds until there may be another, 0.0: at once."""
        if stamp != self.stamp or self._token is None:
            return 0.0
        wait = self._token.expired(self._epoch, now, wall)
        self.refresh(now, wall)
        return wait

    def block(self, push: ApnsPush, apns_id: str) -> bytes:
        """The fields of a push, as HEADERS carries them, with the provider token of the last `refresh`."""
        kind = (push.topic, push.push_type, push.priority)
        token = push.device_token.encode()
        try:
            fields = self._fields[kind]
            path = self._paths[len(token)]
        except KeyError:  # the first of its kind
            fields, path = self._begin(kind), self._path(len(token))
        if push.expiration is None and not push.collapse_id:
            return b"".join((path, token, fields, apns_id.encode()))
        expiration = b"" if push.expiration is None else self._expiration(push.expiration)
        if not push.collapse_id:
            return b"".join((path, token, fields, apns_id.encode(), expiration))
        collapse_id = push.collapse_id.encode()
        return b"".join((path, token, fields, apns_id.encode(), expiration, _COLLAPSE_ID[len(collapse_id)], collapse_id))

    def _expiration(self, seconds: int) -> bytes:
        """Its field: that of most pushes of a second is the same."""
        if seconds != self._last_expiration[0]:
            self._last_expiration = seconds, _EXPIRATION + hpack.string(b"%d" % seconds)
        return self._last_expiration[1]

    def _path(self, size: int) -> bytes:
        """All in front of a device token of that many digits. As many entries as there are lengths."""
        path = self._paths[size] = self._pseudo + _PATH_NAME + hpack.integer(len(_PATH) + size, 7) + _PATH
        return path

    def _begin(self, kind: tuple[str, str, int]) -> bytes:
        """All between the device token and the apns-id."""
        if len(self._fields) >= MAX_CACHED:
            self._fields.clear()
        topic, push_type, priority = kind
        fields = [(b"apns-topic", topic.encode()), (b"apns-push-type", push_type.encode()), (b"apns-priority", b"%d" % priority)]
        beginning = hpack.literal(b"authorization", self._bearer, never_indexed=True) if self._bearer else b""
        beginning += hpack.block(fields) + _APNS_ID
        self._fields[kind] = beginning
        return beginning
