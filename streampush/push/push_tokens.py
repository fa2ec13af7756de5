"""Push tokens as devices and backends register them: their rules, and how they may be shown. docs/protocol.md section 5.1."""

from __future__ import annotations

from hashlib import sha256

from streampush.config_apps import MAX_TOPIC, is_topic
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.values import PushToken

MAX_TOKEN_BYTES = 100
"""Apple's are 32 bytes today, those of some kinds 80, and Apple says not to rely on a length: this only bounds what is kept."""

SHOWN_DIGITS = 8
"""Of the hash of a token: enough to compare two, and nothing to push with."""


def push_token(token: bytes, topic: str, *, sandbox: bool) -> PushToken:
    """A push token that may be registered, and pushed to. The same for a frame and for REST.

    Raises Refused, without the token: SERIALIZATION_ERROR for an empty token or what is no topic, PAYLOAD_TOO_LARGE with both
    numbers.
    """
    if not token:
        raise Refused(Code.SERIALIZATION_ERROR, "the push token is empty")
    if len(token) > MAX_TOKEN_BYTES:
        raise Refused(Code.PAYLOAD_TOO_LARGE, f"push token of {len(token)} bytes, the limit is {MAX_TOKEN_BYTES}")
    if len(topic) > MAX_TOPIC:
        raise Refused(Code.PAYLOAD_TOO_LARGE, f"topic of {len(topic)} characters, the limit is {MAX_TOPIC}")
    if not is_topic(topic):
        detail = "the topic of a push token is the app's bundle id: letters, digits, - and _ in parts between single dots"
        raise Refused(Code.SERIALIZATION_ERROR, detail)
    return PushToken(token, topic, sandbox)


def shown(token: bytes) -> str:
    """A token as people may see it: the first digits of the SHA-256 of its hexadecimal form, as `streampush apns-sim` shows it."""
    return sha256(token.hex().encode()).hexdigest()[:SHOWN_DIGITS]
