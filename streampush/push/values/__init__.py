"""The values that flow through `push/`: frozen, compared by value, free of any wire or storage form.

Wall times end in `_ms` (Unix time in milliseconds, as stored and sent); durations are float seconds. One module for each topic;
all are had from here, because most who take part in a message's way need words of several.
"""

from streampush.push.values.alerts import Alert
from streampush.push.values.asking import (
    ChannelRules,
    ChannelStatus,
    Principal,
    Published,
    PublishRequest,
    Recalled,
)
from streampush.push.values.devices import (
    ChannelPresence,
    Close,
    ConnectionInfo,
    DeviceRecord,
    DeviceStatus,
    PushToken,
    Reach,
    Session,
)
from streampush.push.values.log import (
    NO_HEADERS,
    Accepted,
    Appended,
    Draft,
    Head,
    Idempotency,
    Page,
    Publication,
)
from streampush.push.values.places import (
    ChannelCursor,
    Cursor,
    CursorMove,
    DurableSubscription,
    FeedStatus,
    Position,
    Spot,
    SubscribeRequest,
    Subscription,
    SubscriptionRefused,
    Survey,
    Want,
)
from streampush.push.values.receipts import (
    NO_COUNTS,
    DeadLetter,
    DeviceReceipt,
    Mark,
    MessageRecord,
    Undeliverable,
)
from streampush.push.values.store import (
    FALLBACK,
    OutboxEntry,
    OutboxWork,
    StoreStatus,
)

__all__ = [
    "FALLBACK",
    "NO_COUNTS",
    "NO_HEADERS",
    "Accepted",
    "Alert",
    "Appended",
    "ChannelCursor",
    "ChannelPresence",
    "ChannelRules",
    "ChannelStatus",
    "Close",
    "ConnectionInfo",
    "Cursor",
    "CursorMove",
    "DeadLetter",
    "DeviceReceipt",
    "DeviceRecord",
    "DeviceStatus",
    "Draft",
    "DurableSubscription",
    "FeedStatus",
    "Head",
    "Idempotency",
    "Mark",
    "MessageRecord",
    "OutboxEntry",
    "OutboxWork",
    "Page",
    "Position",
    "Principal",
    "Publication",
    "PublishRequest",
    "Published",
    "PushToken",
    "Reach",
    "Recalled",
    "Session",
    "Spot",
    "StoreStatus",
    "SubscribeRequest",
    "Subscription",
    "SubscriptionRefused",
    "Survey",
    "Undeliverable",
    "Want",
]
