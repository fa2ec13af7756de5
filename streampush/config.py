"""The settings: frozen dataclasses in which every limit has its unit, default, allowed range and reason.

A field's metadata is its contract: `unit`, `why`, `low` and `high`, or `allowed`. A field without a range is free text, a flag
or a list. `loading` reads them from TOML, the environment and options, and checks them; here nothing is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

SCOPES = ("publish", "push", "read", "devices", "disconnect", "nodes", "metrics")
"""What a REST key may be good for."""

INTERRUPTION_LEVELS = ("passive", "active", "time-sensitive", "critical")
"""Apple's words for how much an alert may disturb."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a setting: an error refuses the start, a warning is logged. `str()` is one line."""

    severity: Literal["error", "warning"]
    file: str
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.key}: {self.text}" if self.key else f"{self.file}: {self.text}"


def setting(default: Any, unit: str, why: str, low: float | None = None, high: float | None = None) -> Any:
    """A field with its unit, reason and allowed range (inclusive)."""
    metadata = {"unit": unit, "why": why, "low": low, "high": high}
    return field(default=default, metadata=metadata)


def secret_setting(default: str, why: str) -> Any:
    """A text field that may have a secret in it, and is never shown."""
    return field(default=default, repr=False, metadata={"unit": "", "why": why})


def choice(default: str, allowed: tuple[str, ...], why: str) -> Any:
    """A text field with a closed set of values."""
    return field(default=default, metadata={"unit": "", "why": why, "allowed": allowed})


@dataclass(frozen=True, slots=True)
class NodeConfig:
    name: str = setting("", "", "names this node in Welcome, logs and the probe; empty: the host's name")
    handover: str = setting("", "file", "a Unix socket, where a new process asks for the listening sockets; empty: no upgrades")
    workers: int = setting(0, "processes", "that a supervisor starts on the same ports, about one a core; 0: one, without", 0, 64)
    worker_timeout: float = setting(15.0, "s", "a worker that answers its supervisor nothing for so long is killed", 0.5, 600)


@dataclass(frozen=True, slots=True)
class ListenConfig:
    address: str = setting("0.0.0.0", "", "devices come from anywhere, by certificate")  # noqa: S104 - the public port
    port: int = setting(7443, "port", "the stream protocol", 0, 65535)
    backlog: int = setting(1024, "connections", "completed TCP handshakes that wait for accept in a storm", 1, 65535)
    proxy_protocol: str = choice(
        "off", ("off", "v1", "v2", "any"), "a proxy in front says who the client is, in a header before TLS"
    )
    proxy_from: tuple[str, ...] = setting((), "networks", "who may say so; all others are refused while proxy_protocol is on")
    proxy_timeout: float = setting(5.0, "s", "for the header, which a proxy sends with the connect", 0.1, 300)
    steering: str = choice(
        "connection", ("connection", "address"), "which worker gets a connection; address: always the same, where its TLS resumes"
    )
    proxy_waiting: int = setting(256, "connections", "whose header is not there yet; more are refused", 1, 100_000)


@dataclass(frozen=True, slots=True)
class TlsConfig:
    certificate: str = setting("", "file", "server certificate and chain, PEM")
    key: str = setting("", "file", "its private key, PEM, readable by the owner only")
    client_ca: str = setting("", "file", "CA certificates that sign device and publisher certificates, PEM")
    crl: str = setting("", "file", "revocation lists of these CAs, PEM; empty: none")
    deny_list: str = setting("", "file", "one denied device id, publisher name or SHA-256 fingerprint a line; empty: none")
    minimum: str = choice("1.3", ("1.2", "1.3"), "1.3 hides client certificates from the network")
    identity: str = choice("san_uri", ("san_uri", "common_name"), "where the certificate says who the client is")
    resumption: bool = setting(True, "", "halves the CPU of a reconnect storm")
    session_lifetime: float = setting(7200.0, "s", "how long a TLS session may be resumed", 1, 604800)


@dataclass(frozen=True, slots=True)
class AdmissionConfig:
    max_connections: int = setting(10_000, "connections", "each takes a file descriptor and some 40 KiB", 1, 1_000_000)
    max_per_address: int = setting(1_000, "connections", "one address must not take the whole cap", 1, 1_000_000)
    accept_rate: float = setting(500.0, "connections/s", "handshakes of one core, about 0.7 ms each, with room for work", 0.1, 1e6)
    accept_burst: int = setting(1_000, "connections", "a moment's storm that is let in at once", 1, 1_000_000)
    max_handshakes: int = setting(200, "handshakes", "TLS handshakes under way at once", 1, 100_000)
    max_handshakes_per_address: int = setting(50, "handshakes", "one address must not hold all of them", 1, 100_000)
    max_told: int = setting(32, "connections", "refused, and told at once when to come back; 0: all are just cut", 0, 10_000)
    handshake_share: float = setting(0.5, "share", "of one core for those who connect; the rest for who has", 0.01, 1)


@dataclass(frozen=True, slots=True)
class SessionConfig:
    max_frame: int = setting(1024 * 1024, "bytes", "memory that one peer can make us hold", 4096, 16 * 1024 * 1024 - 1)
    max_resync_bytes: int = setting(64 * 1024, "bytes", "how far to look for the next frame behind damage", 0, 1024 * 1024)
    max_bad_frames: int = setting(8, "frames", "damages in a row before the peer counts as broken", 0, 1000)
    handshake_timeout: float = setting(10.0, "s", "a TLS handshake on a bad mobile network", 0.1, 300)
    hello_timeout: float = setting(10.0, "s", "the greeting behind the handshake", 0.1, 300)
    frame_timeout: float = setting(30.0, "s", "completion of a started frame; stops trickling peers", 0.1, 3600)
    idle_timeout: float = setting(0.0, "s", "closes connections that only beat; 0: never", 0, 604800)
    max_age: float = setting(0.0, "s", "connections are renewed at this age, spread by a tenth; 0: never", 0, 2_592_000)
    drain_timeout: float = setting(10.0, "s", "what GoAway leaves the peer to finish", 0, 3600)
    send_buffer: int = setting(256 * 1024, "bytes", "high-water mark of a connection's send buffer", 4096, 64 * 1024 * 1024)
    send_buffer_max: int = setting(4 * 1024 * 1024, "bytes", "above this a peer is cut with 1005", 65536, 256 * 1024 * 1024)
    send_stall_timeout: float = setting(60.0, "s", "a full buffer that does not move is cut with 1005", 0.1, 3600)


@dataclass(frozen=True, slots=True)
class HeartbeatConfig:
    interval: float = setting(30.0, "s", "silence after which a ping goes out; below most NAT timeouts", 0.05, 3600)
    reply_timeout: float = setting(10.0, "s", "time for the answer to a ping; at most the interval", 0.05, 3600)
    misses: int = setting(3, "pings", "unanswered pings that make a lost peer", 1, 20)
    min_ping_interval: float = setting(10.0, "s", "clients that ping faster are told 2008", 0, 3600)


@dataclass(frozen=True, slots=True)
class ReconnectConfig:
    first_jitter: float = setting(5.0, "s", "spreads the first reconnect of clients that were cut together", 0, 3600)
    backoff_initial: float = setting(1.0, "s", "first step of the exponential backoff", 0.01, 600)
    backoff_max: float = setting(60.0, "s", "longest step of the exponential backoff", 0.01, 86400)
    degraded_after: int = setting(5, "tries", "failed tries before a client makes short connections", 1, 1000)


@dataclass(frozen=True, slots=True)
class DeliveryConfig:
    receive_window_messages: int = setting(256, "messages", "unacknowledged deliveries, if a device names no window", 1, 65536)
    receive_window_bytes: int = setting(1024 * 1024, "bytes", "the same in bytes of frames", 1024, 256 * 1024 * 1024)
    max_subscriptions: int = setting(1_000, "channels", "what one connection may follow", 1, 100_000)
    page_messages: int = setting(64, "messages", "read from the log at a time for a connection that lags", 1, 10_000)
    page_bytes: int = setting(256 * 1024, "bytes", "the same in bytes of payload", 1024, 16 * 1024 * 1024)
    max_reads: int = setting(16, "pages", "read from the log at once over all connections; bounds a turn, and memory", 1, 10_000)
    ack_timeout: float = setting(30.0, "s", "an unacknowledged delivery is repeated; doubles with each attempt", 0.1, 86_400)
    redelivery_max_interval: float = setting(600.0, "s", "longest wait between two attempts", 0.1, 86_400)
    max_attempts: int = setting(10, "deliveries", "in vain, before a message is a dead letter and the channel goes on", 1, 1_000)
    max_held: int = setting(64, "messages", "of a channel that a device asked for later, before the channel waits", 1, 10_000)
    max_dead_letters: int = setting(1_000, "messages", "kept per device; the oldest go first", 1, 1_000_000)
    subscribe: tuple[str, ...] = setting((), "patterns", "topics a device may subscribe to; {device}, {user}: its own")
    publish: tuple[str, ...] = setting((), "patterns", "channels a device may publish to")


@dataclass(frozen=True, slots=True)
class PublishConfig:
    max_payload: int = setting(256 * 1024, "bytes", "one message; with its envelope below max_frame", 1, 16 * 1024 * 1024 - 1)
    max_headers: int = setting(32, "headers", "headers of one message", 0, 1000)
    max_headers_bytes: int = setting(8192, "bytes", "names and values together", 0, 1024 * 1024)
    max_ttl: float = setting(2_592_000.0, "s", "30 days; a longer ttl is refused", 1, 31_536_000)
    max_delay: float = setting(2_592_000.0, "s", "30 days; a later deliver_at is refused", 1, 31_536_000)
    max_collapse_key: int = setting(64, "bytes", "what Apple allows for a collapse id", 1, 1_024)
    idempotency_window: float = setting(86_400.0, "s", "how long a repeated key gives the first answer", 1, 2_592_000)
    publisher_rate: float = setting(
        5_000.0, "messages/s", "of each publisher certificate and REST key, over all nodes together", 0.1, 1e7
    )
    publisher_burst: int = setting(10_000, "messages", "a moment's rush that is taken at once", 1, 10_000_000)
    device_rate: float = setting(10.0, "requests/s", "of one device, at whatever node: publish, subscribe, state, token", 0.1, 1e6)
    device_burst: int = setting(100, "requests", "a reconnecting device subscribes at once", 1, 1_000_000)
    max_watched: int = setting(100_000, "messages", "whose progress is followed on this node; 0.7 KiB each", 1, 10_000_000)
    max_watched_per_connection: int = setting(10_000, "messages", "the newest of a publisher get receipts", 1, 1_000_000)


@dataclass(frozen=True, slots=True)
class StoreConfig:
    backend: str = choice(
        "sqlite",
        ("sqlite", "memory", "redis"),
        "sqlite: on disk; memory: until the end; redis: for several nodes",
    )
    url: str = secret_setting("", 'redis://, rediss://, redis+sentinel://…, with backend = "redis"')
    prefix: str = setting("streampush", "", "before all keys in Redis: nodes with the same one are one deployment")
    password_file: str = setting("", "file", "the password of Redis, one line, for its owner only; or in the url")
    ca: str = setting("", "file", "CA certificates that sign Redis's, PEM; empty: those of the system")
    certificate: str = setting("", "file", "client certificate for Redis and chain, PEM; empty: none")
    key: str = setting("", "file", "its private key, PEM, readable by the owner only")
    replicas: int = setting(0, "replicas", "of Redis that must have a message before its publisher is told; 0: none", 0, 8)
    timeout: float = setting(5.0, "s", "without an answer of Redis, or of its replicas, until it counts as away", 0.1, 300)
    publish_timeout: float = setting(1.0, "s", "that requests wait for Redis to come back before 3008; 0: they do not", 0, 60)
    path: str = setting("streampush.db", "file", "the SQLite file; its folder must exist, beside it live -wal, -shm and .lock")
    max_queue: int = setting(10_000, "operations", "that wait for the disk; more are refused with 3008", 10, 1_000_000)
    max_batch: int = setting(1_000, "operations", "stored with one commit", 1, 100_000)
    max_scheduled: int = setting(100_000, "messages", "that wait for their time; more are refused with 3007", 1, 100_000_000)
    max_idempotency_keys: int = setting(100_000, "keys", "remembered per publisher; the oldest are forgotten first", 1, 100_000_000)
    max_idempotency_keys_total: int = setting(
        1_000_000, "keys", "of all publishers, devices too; 0.3 KiB each on disk; the oldest are forgotten first", 1, 100_000_000
    )
    max_outbox: int = setting(1_000_000, "entries", "work that waits for a sender; more is refused with 3007", 1, 100_000_000)
    history_messages: int = setting(1_000, "messages", "kept per channel", 1, 10_000_000)
    history_bytes: int = setting(4 * 1024 * 1024, "bytes", "payload kept per channel", 1024, 1 << 40)
    history_age: float = setting(86_400.0, "s", "kept per channel", 1, 31_536_000)
    max_channels: int = setting(0, "channels", "more: 3007; 0: 1 000 000, in memory 100 000", 0, 100_000_000)
    max_devices: int = setting(1_000_000, "devices", "memory; more are refused with 3007", 1, 100_000_000)
    max_bytes: int = setting(0, "bytes", "payload of all; more: 3007; 0: sqlite 16 GiB, memory 256 MiB, redis 1 GiB", 0, 1 << 44)

    def sized(self) -> StoreConfig:
        """With the limits of its backend where none is set: a disk holds more than memory does."""
        channels, size = _SIZES[self.backend]
        return replace(self, max_channels=self.max_channels or channels, max_bytes=self.max_bytes or size)


_SIZES = {"sqlite": (1_000_000, 16 * 1024**3), "memory": (100_000, 256 * 1024**2), "redis": (1_000_000, 1024**3)}
"""Of each backend: channels, and bytes of payload, that it holds if nothing else is said."""


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """A REST key: `[[rest.keys]]`. `sha256` is the hex digest of the key itself, which is shown once by `streampush init`."""

    name: str = setting("", "", "shown in logs and metrics instead of the key")
    sha256: str = setting("", "hex", "SHA-256 of the key")
    publish: tuple[str, ...] = setting((), "patterns", "channels it may publish to")
    scopes: tuple[str, ...] = setting(("publish",), "", 'of "publish", "push", "read", "devices", "disconnect", "nodes", "metrics"')


@dataclass(frozen=True, slots=True)
class RestConfig:
    enabled: bool = setting(True, "", "off: publishers use the framed protocol, nothing serves metrics and health")
    address: str = setting("127.0.0.1", "", "other than loopback only with certificate and key")
    port: int = setting(7480, "port", "REST API, metrics and health", 0, 65535)
    certificate: str = setting("", "file", "server certificate and chain, PEM; empty: no TLS")
    key: str = setting("", "file", "its private key, PEM, readable by the owner only")
    max_body: int = setting(4 * 1024 * 1024, "bytes", "a request's body", 1024, 256 * 1024 * 1024)
    max_batch: int = setting(1_000, "messages", "of one POST /v1/publish/batch", 1, 100_000)
    request_timeout: float = setting(30.0, "s", "a client that does not finish its request", 0.1, 3600)
    max_event_streams: int = setting(256, "streams", "of events open at once; each takes one of 512 connections", 0, 512)
    max_event_streams_per_key: int = setting(64, "streams", "one key must not take them all", 1, 512)
    max_event_time: float = setting(3600.0, "s", "an event stream ends then; its client may resume it", 1, 86_400)
    keys: tuple[KeyConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class PublisherConfig:
    """A publisher certificate's rights: `[publishers.NAME]`."""

    publish: tuple[str, ...] = setting((), "patterns", "channels it may publish to")


@dataclass(frozen=True, slots=True)
class ApnsAppConfig:
    """An app of Apple's: `[[apns.apps]]`. It pushes with a key (.p8), which needs team and key id, or with a certificate."""

    name: str = setting("", "", "names the app in requests, logs and metrics")
    bundle_id: str = setting("", "", "the app's bundle id, the topic of its pushes")
    environment: str = choice("production", ("production", "sandbox"), "sandbox for builds from Xcode, production for all else")
    key: str = setting("", "file", "Apple's .p8, or the certificate's key in PEM if it is not in its file; for their owner only")
    team_id: str = setting("", "", "10 characters, in the membership details of Apple's developer account; with a .p8 key")
    key_id: str = setting("", "", "10 characters, in the name of the file: AuthKey_KEYID.p8; with a .p8 key")
    certificate: str = setting("", "file", "a certificate of Apple's for pushes, PEM, in place of a .p8 key")
    topics: tuple[str, ...] = setting((), "topics", "that it may push to beside its bundle id, such as BUNDLE_ID.voip")
    host: str = setting("", "", "a server in place of Apple's, such as `streampush apns-sim`; empty: Apple's of the environment")
    port: int = setting(443, "port", "2197 where a firewall has 443 for itself", 1, 65535)
    ca: str = setting("", "file", "CA certificates that sign the server's, PEM; empty: those of the system")
    fallback_after: float = setting(5.0, "s", "a connected device has so long to acknowledge before it is pushed to", 0, 86_400)
    expiration: float = setting(86_400.0, "s", "Apple keeps a push, at most as long as its message; 0: it tries once", 0, 2_592_000)
    sound: str = setting("", "", "of alerts that name none; empty: none, default: the system's")
    category: str = setting("", "", "of alerts that name none: the app's name of the buttons that go with it")
    interruption_level: str = choice("", ("", *INTERRUPTION_LEVELS), "of alerts that name none; empty: Apple's, active")
    mutable_content: bool = setting(False, "", "alerts pass through the app's notification service extension")
    repeat_unknown: str = choice(
        "collapsible",
        ("collapsible", "always", "never"),
        "pushes that Apple took or not, without an answer; collapsible: where the first is replaced",
    )
    server_error_wait: float = setting(900.0, "s", "until a push is repeated that Apple failed at; it asks for 15 min", 0, 86_400)
    rate: float = setting(0.0, "pushes/s", "of this app at most; 0: as fast as Apple takes them", 0, 1e6)
    burst: int = setting(1_000, "pushes", "of this app at once, if it has a rate", 1, 1_000_000)
    max_concurrent: int = setting(0, "pushes", "of this app that wait for Apple's answer; 0: max_in_flight", 0, 100_000)
    max_tries: int = setting(20, "tries", "of one push, the first included; with the waits some hours", 1, 1_000)
    retry_share: float = setting(0.1, "repeats", "for each push that Apple takes; more meet an outage with a flood", 0, 1)
    retry_stock: int = setting(100, "repeats", "saved up at most, and there at the start: a small sender can repeat", 1, 100_000)
    device_rest: float = setting(5.0, "s", "a device gets nothing after a 429 without Retry-After, doubled with each", 0.1, 86_400)
    device_max_rest: float = setting(900.0, "s", "the longest of these: later a push is seldom wanted", 0.1, 86_400)
    breaker_answers: int = setting(20, "answers", "in 10 s before the breaker opens: few bad ones are no outage", 1, 100_000)
    breaker_bad: float = setting(0.5, "share", "of bad answers that opens the breaker; 1: only if all are bad", 0.01, 1)
    breaker_slow: float = setting(0.5, "share", "of slow answers that opens the breaker; 1: only if all are slow", 0.01, 1)
    breaker_slow_after: float = setting(1.0, "s", "an answer within it is never slow, however fast the others are", 0.05, 10)
    breaker_max_rest: float = setting(60.0, "s", "the breaker is open at most before the next probe; it doubles from 1 s", 1, 3600)


@dataclass(frozen=True, slots=True)
class ApnsConfig:
    """Pushes to devices that are away, through Apple: on if there is an app."""

    max_connections: int = setting(4, "connections", "with one key or certificate; each carries some 1 000 pushes at a time", 1, 64)
    max_in_flight: int = setting(4_000, "pushes", "of all apps that wait for Apple's answer; some 2 KiB each", 1, 100_000)
    max_queued: int = setting(20_000, "pushes", "of one app that wait for their turn; more wait in the store", 1, 1_000_000)
    max_queued_bytes: int = setting(64 * 1024 * 1024, "bytes", "the same in bytes", 64 * 1024, 4 * 1024**3)
    max_wait: float = setting(30.0, "s", "for a turn; what has none by then waits in the store", 0.1, 3600)
    proxy: str = setting("", "host:port", "an HTTP proxy (CONNECT) on the way to Apple; empty: none")
    proxy_user: str = setting("", "", "its user, if it asks for one")
    proxy_password_file: str = setting("", "file", "the user's password, one line, for its owner only")
    apps: tuple[ApnsAppConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    interval: float = setting(5.0, "s", "a message goes through the whole publish path so often", 0.05, 3600)
    failures: int = setting(3, "intervals", "without a probe that arrived, readiness goes red", 1, 1000)


@dataclass(frozen=True, slots=True)
class LogConfig:
    format: str = choice("json", ("json", "text"), "one JSON object a line, or Twisted's own text")
    sample_burst: int = setting(10, "lines", "of one kind logged in a window before the rest is counted", 1, 1_000_000)
    sample_window: float = setting(10.0, "s", "length of that window", 0.1, 3600)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything; `file` is where it came from, for messages."""

    file: str = "(defaults)"
    node: NodeConfig = NodeConfig()
    listen: ListenConfig = ListenConfig()
    tls: TlsConfig = TlsConfig()
    admission: AdmissionConfig = AdmissionConfig()
    session: SessionConfig = SessionConfig()
    heartbeat: HeartbeatConfig = HeartbeatConfig()
    reconnect: ReconnectConfig = ReconnectConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    publish: PublishConfig = PublishConfig()
    store: StoreConfig = StoreConfig()
    rest: RestConfig = RestConfig()
    apns: ApnsConfig = ApnsConfig()
    publishers: dict[str, PublisherConfig] = field(default_factory=dict)
    probe: ProbeConfig = ProbeConfig()
    log: LogConfig = LogConfig()
