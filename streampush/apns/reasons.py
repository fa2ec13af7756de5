"""Apple's reasons, and what is done about each.

Source: Apple, "Handling notification responses from APNs" and, for channels of Live Activities, "Handling error responses from
Apple Push Notification service". A reason decides; where it is missing or not known, its status does. docs/apns.md tells
operators the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Action(StrEnum):
    """What is done, with what."""

    NEVER = "never"
    """This push is given up: it would be rejected again."""
    DROP_TOKEN = "drop_token"  # noqa: S105  # a word, not a secret
    """The push is given up, and the device token with it, unless it was registered again since (dead_tokens.py)."""
    RETRY = "retry"
    """At once, over another connection: this one is at its end, the push was not taken."""
    LATER = "later"
    """When the service has recovered: after Retry-After or the wait of retry.py."""
    REST_DEVICE = "rest_device"
    """The device gets nothing for a while (rates.py); the push waits."""
    REST_CONNECTION = "rest_connection"
    """The connection takes no new pushes for a while; the push goes over another one, or waits."""
    NEW_CONNECTION = "new_connection"
    """The connection may not be used with this key; the push goes over a new one."""
    NEW_PROVIDER_TOKEN = "new_provider_token"  # noqa: S105  # a word, not a secret
    """A new provider token if Apple's 20 minutes allow one (provider_token.py), and the push again."""
    STOP_CREDENTIAL = "stop_credential"
    """Nothing more goes out with this key or certificate until an operator has replaced it; its pushes wait."""
    STOP_TOPIC = "stop_topic"
    """Nothing more goes out with this credential to this topic until the configuration has changed; the push is given up."""


_REPEATED = frozenset(
    {
        Action.RETRY,
        Action.LATER,
        Action.REST_DEVICE,
        Action.REST_CONNECTION,
        Action.NEW_CONNECTION,
        Action.NEW_PROVIDER_TOKEN,
        Action.STOP_CREDENTIAL,
    }
)


@dataclass(frozen=True, slots=True)
class Treatment:
    """`status`: the one that Apple documents with the reason. `meaning`: for people. `advice`: what an operator does, "" for
    nothing."""

    status: int
    action: Action
    meaning: str
    advice: str = ""

    @property
    def repeat(self) -> bool:
        """Whether the push itself may go out again, now or later."""
        return self.action in _REPEATED


_OURS = "a fault of streampush, which checks this before it sends: please report it"
_TOPIC = "compare the app's bundle id with what the key or certificate is for"
_KEY = "check key, key id and team in Apple's developer account, replace them, reload"
_ENVIRONMENT = "the environment in the configuration is not that of the build: sandbox for Xcode's, production for all else"

REASONS: Mapping[str, Treatment] = MappingProxyType(
    {
        "BadCollapseId": Treatment(400, Action.NEVER, "the collapse id is longer than 64 bytes", _OURS),
        "BadDeviceToken": Treatment(
            400, Action.DROP_TOKEN, "the device token is not one, or of the other environment", _ENVIRONMENT
        ),
        "BadExpirationDate": Treatment(
            400,
            Action.NEVER,
            "the expiration is no Unix time, or the channel keeps nothing and it is not 0",
            "send a broadcast to such a channel without a ttl; of other pushes it is " + _OURS,
        ),
        "BadMessageId": Treatment(400, Action.NEVER, "the apns-id is no UUID", _OURS),
        "BadPriority": Treatment(400, Action.NEVER, "the priority is not one that the push type allows", _OURS),
        "BadTopic": Treatment(400, Action.STOP_TOPIC, "the topic is not valid", _TOPIC),
        "DeviceTokenNotForTopic": Treatment(400, Action.DROP_TOKEN, "the device token belongs to another app", _TOPIC),
        "DuplicateHeaders": Treatment(400, Action.NEVER, "a header was there twice", _OURS),
        "IdleTimeout": Treatment(400, Action.RETRY, "the connection was idle for too long"),
        "InvalidPushType": Treatment(400, Action.NEVER, "the push type is not known", _OURS),
        "MissingDeviceToken": Treatment(400, Action.NEVER, "the path has no device token", _OURS),
        "MissingTopic": Treatment(400, Action.STOP_TOPIC, "the topic is missing and the certificate has several", _TOPIC),
        "PayloadEmpty": Treatment(400, Action.NEVER, "the payload is empty", _OURS),
        "TopicDisallowed": Treatment(400, Action.STOP_TOPIC, "this key or certificate may not push to the topic", _TOPIC),
        "BadCertificate": Treatment(403, Action.STOP_CREDENTIAL, "the certificate is not valid", "renew the certificate, reload"),
        "BadCertificateEnvironment": Treatment(
            403, Action.STOP_CREDENTIAL, "the certificate is for the other environment", _ENVIRONMENT
        ),
        "ExpiredProviderToken": Treatment(
            403, Action.NEW_PROVIDER_TOKEN, "the provider token is older than an hour", "if it comes again: set the clock"
        ),
        "Forbidden": Treatment(403, Action.STOP_CREDENTIAL, "what was asked for is not allowed, or the key was revoked", _KEY),
        "InvalidProviderToken": Treatment(
            403, Action.STOP_CREDENTIAL, "the provider token is not valid or not signed by the key", _KEY
        ),
        "MissingProviderToken": Treatment(
            403, Action.STOP_CREDENTIAL, "there was neither a certificate nor a provider token", "configure one of them for the app"
        ),
        "UnrelatedKeyIdInToken": Treatment(
            403, Action.NEW_CONNECTION, "the connection began with a key that this one is not related to"
        ),
        "BadEnvironmentKeyIdInToken": Treatment(403, Action.STOP_CREDENTIAL, "the key is for the other environment", _ENVIRONMENT),
        # the same, as the servers write it
        "BadEnvironmentKeyInToken": Treatment(403, Action.STOP_CREDENTIAL, "the key is for the other environment", _ENVIRONMENT),
        "BadPath": Treatment(404, Action.NEVER, "the path is not valid", _OURS),
        "MethodNotAllowed": Treatment(405, Action.NEVER, "the method is not POST", _OURS),
        "ExpiredToken": Treatment(410, Action.DROP_TOKEN, "the device token has expired"),
        "Unregistered": Treatment(410, Action.DROP_TOKEN, "the app is no longer on the device, or not registered"),
        "PayloadTooLarge": Treatment(413, Action.NEVER, "the payload is above Apple's limit", _OURS),
        "TooManyProviderTokenUpdates": Treatment(
            429, Action.REST_CONNECTION, "new provider tokens came more often than every 20 minutes", "do not restart so often"
        ),
        "TooManyRequests": Treatment(429, Action.REST_DEVICE, "this device gets too many pushes in a row"),
        "InternalServerError": Treatment(500, Action.LATER, "a fault at Apple's"),
        "ServiceUnavailable": Treatment(503, Action.LATER, "Apple's service is not available"),
        "Shutdown": Treatment(503, Action.RETRY, "the server behind this connection shuts down"),
        # channels of Live Activities
        "BadChannelId": Treatment(400, Action.NEVER, "the channel id is not valid", "give it as Apple answered it, in base64"),
        "BadRequestParams": Treatment(400, Action.NEVER, "the request to manage channels is not valid", _OURS),
        "BadRequestPayload": Treatment(400, Action.NEVER, "the body of the request to manage channels is not valid", _OURS),
        "CannotCreateChannelConfig": Treatment(
            400, Action.NEVER, "the app has as many channels as Apple allows", "delete channels that are not used"
        ),
        "ChannelNotRegistered": Treatment(400, Action.NEVER, "there is no such channel in this environment", "create it again"),
        "FeatureNotEnabled": Treatment(
            400, Action.STOP_TOPIC, "broadcasting is not enabled for the app", "enable it in Apple's developer account"
        ),
        "MissingChannelId": Treatment(400, Action.NEVER, "the channel id is missing", _OURS),
        "MissingPushType": Treatment(400, Action.NEVER, "the push type is missing", _OURS),
        "TopicMismatch": Treatment(400, Action.NEVER, "the channel belongs to another app", _TOPIC),
    }
)
"""Every reason that is known."""

_UNKNOWN_WORD = "a reason that streampush does not know"

_BY_STATUS: Mapping[int, Treatment] = MappingProxyType(
    {
        403: Treatment(403, Action.STOP_CREDENTIAL, f"key, certificate or provider token are not accepted: {_UNKNOWN_WORD}", _KEY),
        410: Treatment(410, Action.DROP_TOKEN, f"the device token is dead: {_UNKNOWN_WORD}"),
        429: Treatment(429, Action.REST_DEVICE, f"too many requests: {_UNKNOWN_WORD}"),
    }
)


def treatment(status: int, reason: str) -> Treatment:
    """What to do about an answer other than 200. Raises nothing: what is not known is treated by its status.

    A reason that is known counts whatever the status, but for one: a 5XX with the reason of a 4XX is no verdict about the push,
    somebody in between or behind has failed, and no device token is dropped for it.
    """
    known = REASONS.get(reason)
    if known is not None and (status < 500 or known.status >= 500):
        return known
    by_status = _BY_STATUS.get(status)
    if by_status is not None:
        return by_status
    if status >= 500:
        return Treatment(status, Action.LATER, f"a fault at Apple's: {_UNKNOWN_WORD}")
    return Treatment(status, Action.NEVER, f"rejected: {_UNKNOWN_WORD}")
