"""What the HTTP API needs of the rest of the process, as protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from streampush.push.backlog import Backlog
from streampush.push.dead_letters import DeadLetters
from streampush.push.devices import Devices
from streampush.push.direct import DirectPush, DirectResult, NoApp
from streampush.push.explaining import Explainer
from streampush.push.live import LiveRequest, LiveResult
from streampush.push.nodes import Move, UnknownNode
from streampush.push.progress import MessageProgress
from streampush.push.values import (
    ChannelStatus,
    DeviceStatus,
    KnownNode,
    Principal,
    Published,
    PublishRequest,
    PushRecord,
    Recalled,
)
from streampush.push.watching import Watch, Watcher


class ReceiptApi(Protocol):
    """What became of messages. `push.receipts.Receipts` is one."""

    async def progress(self, message_id: str) -> MessageProgress:
        """As of now. Raises Refused(UNKNOWN_RECIPIENT)."""

    async def push(self, apns_id: str) -> PushRecord:
        """What became of a push. Raises Refused(UNKNOWN_RECIPIENT)."""

    def watch(self, message_id: str, watcher: Watcher) -> Watch:
        """The watcher is told, until `unwatch`. Raises Refused(OVERLOADED)."""

    def unwatch(self, watch: Watch, watcher: Watcher) -> None:
        """The watcher is told no more."""

    def look(self, watch: Watch) -> None:
        """The message is looked at again, soon."""


class ApnsApi(Protocol):
    """What goes on between the node and Apple."""

    def document(self) -> Mapping[str, Any]:
        """As of now, in the words of the schema ApnsStatus."""

    async def push(self, asked: DirectPush, timeout: float) -> DirectResult:
        """Sends a push without a message; how it ended, after `timeout` seconds at most. Raises NoApp and BadDirectPush."""

    async def ask_live(self, asked: LiveRequest, timeout: float) -> LiveResult:
        """About channels for Live Activities; how it ended, after `timeout` seconds at most. Raises NoApp and BadDirectPush."""


class NoApps:
    """Nothing does."""

    def document(self) -> Mapping[str, Any]:
        """See ApnsApi."""
        return {"apps": [], "routes": []}

    async def push(self, asked: DirectPush, timeout: float) -> DirectResult:
        """See ApnsApi."""
        raise NoApp("nothing here pushes to Apple", configured=False)

    async def ask_live(self, asked: LiveRequest, timeout: float) -> LiveResult:
        """See ApnsApi."""
        raise NoApp("nothing here pushes to Apple", configured=False)


class NodesApi(Protocol):
    """The nodes of the deployment. `push.nodes.Nodes` is one."""

    async def all(self) -> Sequence[KnownNode]:
        """Those that live, in order of their names. Raises Refused(STORE_UNAVAILABLE), as the others do."""

    async def drain(self, name: str) -> KnownNode:
        """The node is to drain. Raises UnknownNode."""

    async def undrain(self, name: str) -> KnownNode:
        """The node is to serve again. Raises UnknownNode."""

    async def rebalance(self, *, dry_run: bool) -> Sequence[Move]:
        """What nodes above their share are to send elsewhere; they are told, unless `dry_run`."""


class NoNodes:
    """Nothing is known of any."""

    async def all(self) -> Sequence[KnownNode]:
        """See NodesApi."""
        return ()

    async def drain(self, name: str) -> KnownNode:
        """See NodesApi."""
        raise UnknownNode(name, ())

    async def undrain(self, name: str) -> KnownNode:
        """See NodesApi."""
        raise UnknownNode(name, ())

    async def rebalance(self, *, dry_run: bool) -> Sequence[Move]:
        """See NodesApi."""
        return ()


class PushApi(Protocol):
    """The application. `push.service.PushService` is one."""

    @property
    def devices(self) -> Devices:
        """The devices' records, and who is connected."""

    @property
    def backlog(self) -> Backlog:
        """What waits for devices."""

    @property
    def dead_letters(self) -> DeadLetters:
        """What devices did not take."""

    @property
    def explainer(self) -> Explainer:
        """Why devices are silent."""

    @property
    def receipts(self) -> ReceiptApi:
        """What became of messages."""

    async def publish(self, principal: Principal, request: PublishRequest) -> Published:
        """Stores a message. Raises Refused."""

    async def recall(self, principal: Principal, message_id: str) -> Recalled:
        """Takes a message back. Raises Refused."""

    async def charge(self, principal: Principal) -> None:
        """Counts a push without a message as a message of the publisher. Raises Refused(MESSAGE_RATE_EXCEEDED)."""

    async def describe_device(self, device_id: str) -> DeviceStatus:
        """What is known of a device. Raises Refused(UNKNOWN_RECIPIENT)."""

    async def subscribe_device(self, device_id: str, channel: str) -> bool:
        """Subscribes a device to a topic for good; True if it was not. Raises Refused."""

    async def unsubscribe_device(self, device_id: str, channel: str) -> bool:
        """Ends a durable subscription; False if there was none. Raises Refused."""

    async def disconnect_device(self, device_id: str, detail: str) -> bool:
        """Closes the device's connection; False if it has none."""

    async def describe_channel(self, name: str) -> ChannelStatus:
        """The state of a channel's log. Raises Refused(UNKNOWN_RECIPIENT)."""


class Readiness(Protocol):
    """Whether the node should get traffic. `observe.health.Health` is one."""

    def ready(self, now: float) -> tuple[bool, tuple[str, ...]]:
        """Whether it is ready, and the reasons why not; they are shown to anybody."""


class RestMetrics(Protocol):
    """What this room counts. `observe.metrics.Metrics` does it. The methods are cheap and never raise."""

    def rest_request(self, status: int, seconds: float) -> None:
        """A request was answered with this HTTP status, `seconds` after it was complete."""

    def rest_refused_connection(self) -> None:
        """A connection above the limit was cut."""

    def receipts_told(self, milestone: str, number: int) -> None:
        """So many receipts of a milestone were told; `milestone` is the lower-case name of a terms.Milestone."""

    def event_streams(self, number: int) -> None:
        """So many event streams are open."""
