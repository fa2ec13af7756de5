"""The API over an in-memory connection, in front of an application that remembers what it was asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from streampush.config import KeyConfig, RestConfig
from streampush.errors import Refused
from streampush.observe.health import Flag, Health
from streampush.observe.metrics import Metrics
from streampush.protocol.codes import Code
from streampush.protocol.terms import AppState, Durability, Milestone, Priority
from streampush.push.direct import DirectPush, DirectResult
from streampush.push.live import LiveAction, LiveRequest, LiveResult
from streampush.push.progress import MessageProgress, progress_of
from streampush.push.values import (
    ChannelCursor,
    ChannelStatus,
    DeviceReceipt,
    DeviceStatus,
    Head,
    MessageRecord,
    Principal,
    Published,
    PublishRequest,
    PushOutcome,
    PushRecord,
    PushResult,
    Recalled,
)
from streampush.push.watching import Watch, Watcher
from streampush.rest.api import make_site

ALL = "key-that-may-do-everything"
READER = "key-that-may-only-read"


def key(name: str, secret: str, *scopes: str) -> KeyConfig:
    return KeyConfig(name, hashlib.sha256(secret.encode()).hexdigest(), ("news", "device:*"), scopes)


KEYS = (key("backend", ALL, "publish", "push", "read", "devices", "disconnect", "nodes", "metrics"), key("reader", READER, "read"))

DEVICE = DeviceStatus(
    "phone-1",
    "alice",
    connected=True,
    session_id="S1",
    address="192.0.2.1:5000",
    connected_at_ms=5,
    last_seen_ms=6,
    app="demo",
    app_version="1.0",
    state=AppState.FOREGROUND,
    token_registered=True,
    round_trip=0.05,
    last_close_code=1005,
    last_close_detail="slow consumer",
    channels=(ChannelCursor("device:phone-1", 3, 4, 5),),
)


NOW_MS = 2_000


def record(*receipts: DeviceReceipt, **changes: Any) -> MessageRecord:
    """The message M1 to the user ada, as a store would have it."""
    kept = (Priority.NORMAL, "", True, 5, Durability.MEMORY)
    message = MessageRecord("M1", "user:ada", "E1", 3, "key:shop", 1_000, 0, 0, *kept, devices=receipts)
    return replace(message, **changes)


def receipt(device_id: str, **times: int) -> DeviceReceipt:
    return DeviceReceipt(device_id, {Milestone[name.upper()]: at for name, at in times.items()})


class ScriptedReceipts:
    """A small ReceiptApi: has the records that the test gives it, and tells watchers when it is told to."""

    def __init__(self) -> None:
        self.records: dict[str, MessageRecord] = {"M1": record()}
        self.pushes = {"A1": PushRecord("M1", "phone", PushResult(1_300, PushOutcome.REJECTED, "Unregistered", "A1"))}
        self.watches: dict[Watch, Watcher] = {}
        self.looked = 0
        self.full = False

    async def progress(self, message_id: str) -> MessageProgress:
        if message_id not in self.records:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no message of this id is scheduled or in a log")
        return progress_of(self.records[message_id], ["phone"], NOW_MS, 1_000)

    async def push(self, apns_id: str) -> PushRecord:
        if apns_id not in self.pushes:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no push to a device has this id, or its message has left the log")
        return self.pushes[apns_id]

    def watch(self, message_id: str, watcher: Watcher) -> Watch:
        if self.full:
            raise Refused(Code.OVERLOADED, "0 messages are watched on this node", retry_after=1.0)
        watch = Watch(message_id)
        self.watches[watch] = watcher
        return watch

    def unwatch(self, watch: Watch, watcher: Watcher) -> None:
        self.watches.pop(watch, None)

    def look(self, watch: Watch) -> None:
        self.looked += 1

    def tell(self, *receipts: DeviceReceipt, **changes: Any) -> None:
        """The message M1 is like this now, and its watchers hear of it."""
        self.records["M1"] = record(*receipts, **changes)
        for watcher in list(self.watches.values()):
            watcher.progressed(progress_of(self.records["M1"], ["phone"], NOW_MS, 1_000))

    def lose(self) -> None:
        """The message has left the log."""
        for watcher in list(self.watches.values()):
            watcher.gone()


class ScriptedApple:
    """A small ApnsApi: remembers what it was asked, and fails as it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[DirectPush, float]] = []
        self.live: list[tuple[LiveRequest, float]] = []
        self.error: Exception | None = None

    def document(self) -> Mapping[str, Any]:
        return {"apps": [], "routes": []}

    async def push(self, asked: DirectPush, timeout: float) -> DirectResult:
        self.asked.append((asked, timeout))
        if self.error is not None:
            raise self.error
        return DirectResult("rejected", "A1", 410, "Unregistered", "the app is gone", "", repeat=False, retry_after=None)

    async def ask_live(self, asked: LiveRequest, timeout: float) -> LiveResult:
        self.live.append((asked, timeout))
        if self.error is not None:
            raise self.error
        return LiveResult("done", channel=asked.channel or "ch==", channels=("ch==",) if asked.action is LiveAction.LIST else ())


class RecordingPush:
    """A small PushApi: stores in a list, refuses what it is told to refuse, and can hold its answers back."""

    def __init__(self) -> None:
        self.published: list[tuple[Principal, PublishRequest]] = []
        self.finished: list[PublishRequest] = []
        self.recalled: list[tuple[Principal, str]] = []
        self.disconnected: list[tuple[str, str]] = []
        self.errors: dict[str, Exception] = {}
        self.gates: dict[str, Deferred[None]] = {}
        self.receipts = ScriptedReceipts()

    async def publish(self, principal: Principal, request: PublishRequest) -> Published:
        self.published.append((principal, request))
        gate = self.gates.get(request.channel)
        if gate is not None:
            await gate
        if request.channel in self.errors:
            raise self.errors[request.channel]
        self.finished.append(request)
        return Published(f"M{len(self.finished)}", request.channel, len(self.finished), "E1", Durability.MEMORY, 2)

    async def recall(self, principal: Principal, message_id: str) -> Recalled:
        self.recalled.append((principal, message_id))
        if message_id != "M1":
            raise Refused(Code.UNKNOWN_RECIPIENT, "no message of this id is scheduled or in a log")
        return Recalled("M1", "news", "stored", "E1", 7, "M2", 3)

    async def charge(self, principal: Principal) -> None:
        if "push" in self.errors:
            raise self.errors["push"]

    async def describe_device(self, device_id: str) -> DeviceStatus:
        if device_id != DEVICE.device_id:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no device of this id was ever seen")
        return DEVICE

    async def describe_channel(self, name: str) -> ChannelStatus:
        if name == "nowhere":
            raise Refused(Code.UNKNOWN_RECIPIENT, "no such channel")
        return ChannelStatus(name, Head("E1", 9, 2, "M2"), 4)

    async def disconnect_device(self, device_id: str, detail: str) -> bool:
        self.disconnected.append((device_id, detail))
        return device_id == DEVICE.device_id


@dataclass
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Line:
    """One connection."""

    protocol: Any
    transport: StringTransport

    def send(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def responses(self) -> list[Response]:
        """What has come back so far, whole responses only."""
        found = []
        data = self.transport.value()
        while data:
            head, _, rest = data.partition(b"\r\n\r\n")
            first, *lines = head.decode("ascii").split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            length = int(headers.get("content-length", 0))
            found.append(Response(int(first.split(" ")[1]), headers, rest[:length]))
            data = rest[length:]
        return found

    def lose(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def closing(self) -> bool:
        return self.transport.disconnecting or self.aborted

    @property
    def aborted(self) -> bool:
        return bool(self.transport.disconnected)


class Api:
    """The site with its surroundings."""

    def __init__(
        self, *, address: str = "127.0.0.1", max_connections: int = 8, push: Any = None, nodes: Any = None, **settings: Any
    ) -> None:
        self.push = RecordingPush() if push is None else push
        self.apple = ScriptedApple()
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, "1")
        self.blocked = Flag()
        self.config = RestConfig(address=address, keys=KEYS, **settings)
        self.site = make_site(
            self.push,
            Health({"probe": self.blocked}),
            self.registry,
            self.config,
            self.clock,
            self.metrics,
            max_connections=max_connections,
            apns=self.apple,
            known_nodes=nodes,
        )

    def connect(self) -> Line:
        protocol = self.site.buildProtocol(IPv4Address("TCP", "192.0.2.9", 4000))
        transport = StringTransport()
        protocol.makeConnection(transport)
        return Line(protocol, transport)

    def request(self, method: str, path: str, body: object = None, *, key: str | None = ALL, **headers: str) -> Response:
        """One request on a connection of its own; the one response."""
        line = self.connect()
        line.send(render(method, path, body, key=key, **headers))
        (response,) = line.responses()
        line.lose()
        return response

    def publish(self, *, key: str | None = ALL, **fields: object) -> Response:
        return self.request("POST", "/v1/publish", fields, key=key)


def render(method: str, path: str, body: object = None, *, key: str | None = ALL, **headers: str) -> bytes:
    """A request as bytes; a body that is no bytes object is sent as JSON."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Host": "push.example"}
    if key is not None:
        lines["Authorization"] = f"Bearer {key}"
    if body is not None:
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data
