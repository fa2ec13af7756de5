"""Apple's words for a rejection, with their status codes.

Source: Apple, "Handling notification responses from APNs" and "Handling error responses from Apple Push Notification service"
(the channel words). The table is the simulator's own on purpose: it is the other side, not a copy of what the client believes.
"""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """Why a push was rejected: `word` as in the answer's body, `status` as in its `:status`."""

    BAD_COLLAPSE_ID = ("BadCollapseId", 400)
    BAD_DEVICE_TOKEN = ("BadDeviceToken", 400)
    BAD_EXPIRATION_DATE = ("BadExpirationDate", 400)
    BAD_MESSAGE_ID = ("BadMessageId", 400)
    BAD_PRIORITY = ("BadPriority", 400)
    BAD_TOPIC = ("BadTopic", 400)
    DEVICE_TOKEN_NOT_FOR_TOPIC = ("DeviceTokenNotForTopic", 400)
    DUPLICATE_HEADERS = ("DuplicateHeaders", 400)
    IDLE_TIMEOUT = ("IdleTimeout", 400)
    INVALID_PUSH_TYPE = ("InvalidPushType", 400)
    MISSING_DEVICE_TOKEN = ("MissingDeviceToken", 400)
    MISSING_TOPIC = ("MissingTopic", 400)
    PAYLOAD_EMPTY = ("PayloadEmpty", 400)
    TOPIC_DISALLOWED = ("TopicDisallowed", 400)

    BAD_CHANNEL_ID = ("BadChannelId", 400)
    BAD_REQUEST_PAYLOAD = ("BadRequestPayload", 400)
    CANNOT_CREATE_CHANNEL_CONFIG = ("CannotCreateChannelConfig", 400)
    CHANNEL_NOT_REGISTERED = ("ChannelNotRegistered", 400)
    FEATURE_NOT_ENABLED = ("FeatureNotEnabled", 400)
    MISSING_CHANNEL_ID = ("MissingChannelId", 400)
    MISSING_PUSH_TYPE = ("MissingPushType", 400)
    TOPIC_MISMATCH = ("TopicMismatch", 400)

    BAD_CERTIFICATE = ("BadCertificate", 403)
    BAD_CERTIFICATE_ENVIRONMENT = ("BadCertificateEnvironment", 403)
    BAD_ENVIRONMENT_KEY_ID_IN_TOKEN = ("BadEnvironmentKeyIdInToken", 403)
    BAD_ENVIRONMENT_KEY_IN_TOKEN = ("BadEnvironmentKeyInToken", 403)  # the same, as Apple's servers are said to write it
    EXPIRED_PROVIDER_TOKEN = ("ExpiredProviderToken", 403)
    FORBIDDEN = ("Forbidden", 403)
    INVALID_PROVIDER_TOKEN = ("InvalidProviderToken", 403)
    MISSING_PROVIDER_TOKEN = ("MissingProviderToken", 403)
    UNRELATED_KEY_ID_IN_TOKEN = ("UnrelatedKeyIdInToken", 403)

    BAD_PATH = ("BadPath", 404)
    METHOD_NOT_ALLOWED = ("MethodNotAllowed", 405)

    EXPIRED_TOKEN = ("ExpiredToken", 410)
    UNREGISTERED = ("Unregistered", 410)

    PAYLOAD_TOO_LARGE = ("PayloadTooLarge", 413)

    TOO_MANY_PROVIDER_TOKEN_UPDATES = ("TooManyProviderTokenUpdates", 429)
    TOO_MANY_REQUESTS = ("TooManyRequests", 429)

    INTERNAL_SERVER_ERROR = ("InternalServerError", 500)
    SERVICE_UNAVAILABLE = ("ServiceUnavailable", 503)
    SHUTDOWN = ("Shutdown", 503)

    def __init__(self, word: str, status: int) -> None:
        self.word = word
        self.status = status

    @classmethod
    def of(cls, word: str) -> Reason:
        """The reason with that word. Raises ValueError for a word that Apple does not use."""
        for reason in cls:
            if reason.word == word:
                return reason
        raise ValueError(f"Apple knows no reason {word!r}")
