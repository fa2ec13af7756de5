"""From a certificate to a principal with rights: asked after every handshake, resumed ones too."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509

from streampush.config import Config
from streampush.protocol.codes import Code
from streampush.push.values import ChannelRules, Principal
from streampush.server.identity import Identity, IdentityError, Revocations, identify


class Rejected(Exception):
    """The certificate is good for TLS and yet not welcome. `result` is the name under which it is counted."""

    def __init__(self, result: str, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.result = result
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who it is, and for how many seconds the certificate is still valid."""

    principal: Principal
    valid_for: float


class Gate:
    """`wall_now` gives aware time. `revocations` is replaced as a whole when the lists are read again."""

    def __init__(self, config: Config, revocations: Revocations, wall_now: Callable[[], dt.datetime]) -> None:
        self.revocations = revocations
        self._config = config
        self._wall_now = wall_now
        self._device_publish = ChannelRules(config.delivery.publish)
        self._device_subscribe = ChannelRules(config.delivery.subscribe)

    def identify(self, certificate: x509.Certificate | None) -> Admitted:
        """Raises Rejected."""
        if certificate is None:
            raise Rejected("no_certificate", Code.CERTIFICATE_REJECTED, "no client certificate")
        try:
            identity = identify(certificate, self._config.tls.identity)
        except IdentityError as error:
            raise Rejected("bad_identity", Code.CERTIFICATE_REJECTED, str(error)) from error
        now = self._wall_now()
        if now >= identity.not_after:
            raise Rejected("expired", Code.CERTIFICATE_REJECTED, "the certificate has expired")
        reason = self.revocations.reason(certificate, identity)
        if reason is not None:
            raise Rejected(reason, Code.CERTIFICATE_REJECTED, f"the certificate is {reason}")
        return Admitted(self._principal(identity), (identity.not_after - now).total_seconds())

    def _principal(self, identity: Identity) -> Principal:
        if identity.kind == "device":
            return Principal("device", identity.name, identity.user_id, self._device_publish, self._device_subscribe)
        rights = self._config.publishers.get(identity.name)
        if rights is None:
            raise Rejected("bad_identity", Code.FORBIDDEN, f"publisher {identity.name} is not in the configuration")
        return Principal("publisher", identity.name, may_publish=ChannelRules(rights.publish))
