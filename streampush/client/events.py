"""What happens to the client, as values for the application's `on_event`; messages themselves go to `on_message`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from streampush.protocol.codes import Advice, Code
from streampush.protocol.messages import Receipt, Welcome
from streampush.protocol.terms import LossReason


class StopReason(Enum):
    """Why the client will not connect again."""

    REQUESTED = "requested"  # the application called stop()
    CREDENTIALS = "credentials"  # ours were refused, or the server's are not to be trusted
    REPLACED = "replaced"  # a newer connection of the same device took over
    REAUTHENTICATE = "reauthenticate"
    RENEW_CERTIFICATE = "renew_certificate"
    UPGRADE = "upgrade"
    TOLD = "told"  # DO_NOT_RECONNECT


@dataclass(frozen=True, slots=True)
class Connected:
    """The server has greeted. `degraded`: only to collect the backlog, then the connection is closed again."""

    welcome: Welcome
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A connection ended, or could not be made. `code` 0: nobody named one. `next_try_in`: seconds, None: there is none."""

    code: Code | int
    advice: Advice
    detail: str
    next_try_in: float | None


@dataclass(frozen=True, slots=True)
class Appointed:
    """The client was started before the moment at which the server wants it back, and waits so many seconds for it."""

    next_try_in: float


@dataclass(frozen=True, slots=True)
class Degraded:
    """Away for so many tries that from now on the client makes short connections."""

    tries: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last event of a client."""

    reason: StopReason
    code: Code | int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PositionLost:
    """Messages of the channel were lost to this device. `lost_at_most` 0: it is not known how many."""

    channel: str
    reason: LossReason
    lost_at_most: int


@dataclass(frozen=True, slots=True)
class SubscriptionLost:
    """A channel that was followed could not be taken up again; `subscribe` asks anew."""

    channel: str
    code: Code | int
    detail: str


@dataclass(frozen=True, slots=True)
class BacklogEnded:
    """What was stored for the channel has arrived; what follows is live."""

    channel: str


@dataclass(frozen=True, slots=True)
class Recalled:
    """A message of the channel was taken back: `message_id` is its id, whether it ever arrived here or not.

    `offset` is that of the notice.
    """

    channel: str
    message_id: str
    offset: int


@dataclass(frozen=True, slots=True)
class ReceiptArrived:
    """What became of a message of ours that wanted a receipt, on one device."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Fault:
    """Something went wrong that the client survives: damage on the wire, an Error without a request, the application's code."""

    code: Code | int
    detail: str


ClientEvent: TypeAlias = (
    Connected
    | Disconnected
    | Appointed
    | Degraded
    | Stopped
    | PositionLost
    | SubscriptionLost
    | BacklogEnded
    | Recalled
    | ReceiptArrived
    | Fault
)
