"""The codes of the wire and the advice that goes with each: docs/protocol.md section 8.

A code says what happened, its advice says what to do. A peer that meets a code it does not know acts on the advice alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Code(IntEnum):
    """1xxx network, 2xxx protocol, 3xxx business."""

    CONNECTION_TIMED_OUT = 1001
    RECONNECT_FAILED = 1002
    CONNECTION_LIMIT = 1003
    DRAINING = 1004
    SLOW_CONSUMER = 1005
    REPLACED = 1006
    ACCEPT_RATE_LIMIT = 1007
    OVERLOADED = 1008
    MAXIMUM_AGE = 1009
    CERTIFICATE_REJECTED = 1010
    HEARTBEAT_LOST = 2001
    SERIALIZATION_ERROR = 2002
    CHECKSUM_MISMATCH = 2003
    FRAME_TOO_LARGE = 2004
    EMPTY_FRAME = 2005
    UNSUPPORTED_VERSION = 2006
    HELLO_TIMEOUT = 2007
    TOO_MANY_PINGS = 2008
    FRAME_TIMEOUT = 2009
    UNEXPECTED_MESSAGE = 2010
    MESSAGE_RATE_EXCEEDED = 3001
    NOT_SUBSCRIBED = 3002
    FORBIDDEN = 3003
    PAYLOAD_TOO_LARGE = 3004
    MESSAGE_EXPIRED = 3005
    UNKNOWN_RECIPIENT = 3006
    QUOTA_EXCEEDED = 3007
    STORE_UNAVAILABLE = 3008
    DUPLICATE = 3009
    POSITION_LOST = 3010


class Advice(IntEnum):
    """What the receiver of a code should do next."""

    UNSPECIFIED = 0
    RETRY = 1
    RECONNECT = 2
    RECONNECT_ELSEWHERE = 3
    REAUTHENTICATE = 4
    RENEW_CERTIFICATE = 5
    UPGRADE = 6
    DO_NOT_RECONNECT = 7
    SLOW_DOWN = 8


@dataclass(frozen=True, slots=True)
class CodeInfo:
    """A row of the table of codes: the advice sent by default and one English phrase."""

    advice: Advice
    meaning: str


CODES: dict[Code, CodeInfo] = {
    Code.CONNECTION_TIMED_OUT: CodeInfo(Advice.RECONNECT, "connection timed out"),
    Code.RECONNECT_FAILED: CodeInfo(Advice.RECONNECT, "reconnect failed"),
    Code.CONNECTION_LIMIT: CodeInfo(Advice.RECONNECT_ELSEWHERE, "connection limit"),
    Code.DRAINING: CodeInfo(Advice.RECONNECT_ELSEWHERE, "draining"),
    Code.SLOW_CONSUMER: CodeInfo(Advice.RECONNECT, "slow consumer"),
    Code.REPLACED: CodeInfo(Advice.DO_NOT_RECONNECT, "replaced by a newer connection"),
    Code.ACCEPT_RATE_LIMIT: CodeInfo(Advice.RECONNECT, "handshake or accept rate limit"),
    Code.OVERLOADED: CodeInfo(Advice.RECONNECT_ELSEWHERE, "overloaded"),
    Code.MAXIMUM_AGE: CodeInfo(Advice.RECONNECT, "maximum age"),
    Code.CERTIFICATE_REJECTED: CodeInfo(Advice.RENEW_CERTIFICATE, "certificate revoked or expired"),
    Code.HEARTBEAT_LOST: CodeInfo(Advice.RECONNECT, "heartbeat lost"),
    Code.SERIALIZATION_ERROR: CodeInfo(Advice.UPGRADE, "serialization error"),
    Code.CHECKSUM_MISMATCH: CodeInfo(Advice.RETRY, "checksum mismatch"),
    Code.FRAME_TOO_LARGE: CodeInfo(Advice.DO_NOT_RECONNECT, "frame too large"),
    Code.EMPTY_FRAME: CodeInfo(Advice.UPGRADE, "empty frame"),
    Code.UNSUPPORTED_VERSION: CodeInfo(Advice.UPGRADE, "unsupported version"),
    Code.HELLO_TIMEOUT: CodeInfo(Advice.RECONNECT, "hello timeout"),
    Code.TOO_MANY_PINGS: CodeInfo(Advice.SLOW_DOWN, "too many pings"),
    Code.FRAME_TIMEOUT: CodeInfo(Advice.RECONNECT, "frame timeout"),
    Code.UNEXPECTED_MESSAGE: CodeInfo(Advice.UPGRADE, "unexpected message"),
    Code.MESSAGE_RATE_EXCEEDED: CodeInfo(Advice.SLOW_DOWN, "message rate exceeded"),
    Code.NOT_SUBSCRIBED: CodeInfo(Advice.UNSPECIFIED, "not subscribed"),
    Code.FORBIDDEN: CodeInfo(Advice.REAUTHENTICATE, "forbidden"),
    Code.PAYLOAD_TOO_LARGE: CodeInfo(Advice.DO_NOT_RECONNECT, "payload too large"),
    Code.MESSAGE_EXPIRED: CodeInfo(Advice.UNSPECIFIED, "message expired"),
    Code.UNKNOWN_RECIPIENT: CodeInfo(Advice.UNSPECIFIED, "unknown recipient"),
    Code.QUOTA_EXCEEDED: CodeInfo(Advice.SLOW_DOWN, "quota exceeded"),
    Code.STORE_UNAVAILABLE: CodeInfo(Advice.RETRY, "store unavailable"),
    Code.DUPLICATE: CodeInfo(Advice.UNSPECIFIED, "duplicate"),
    Code.POSITION_LOST: CodeInfo(Advice.UNSPECIFIED, "position lost"),
}
