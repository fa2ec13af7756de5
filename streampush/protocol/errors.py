"""Faults of the wire core. The class tells whose fault it is, the instance carries the code for the peer."""

from __future__ import annotations

from streampush.protocol.codes import Code


class ProtocolError(Exception):
    """Base of both sides' faults."""


class LocalProtocolError(ProtocolError):
    """We asked the core for something that the protocol does not allow now: a bug on our side."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol. `code` is what to tell it; `detail` is English and safe to log."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(f"{int(code)}: {detail}")
        self.code = code
        self.detail = detail
