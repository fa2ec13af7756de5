"""What the HTTP API needs of the rest of the process, as protocols."""

from __future__ import annotations

from typing import Protocol

from streampush.push.values import ChannelStatus, DeviceStatus, Principal, Published, PublishRequest


class PushApi(Protocol):
    """The application. `push.service.PushService` is one."""

    async def publish(self, principal: Principal, request: PublishRequest) -> Published:
        """Stores a message. Raises Refused."""

    async def describe_device(self, device_id: str) -> DeviceStatus:
        """What is known of a device. Raises Refused(UNKNOWN_RECIPIENT)."""

    async def describe_channel(self, name: str) -> ChannelStatus:
        """The state of a channel's log. Raises Refused(UNKNOWN_RECIPIENT)."""

    def disconnect_device(self, device_id: str, detail: str) -> bool:
        """Closes the device's connection; False if it has none."""


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
