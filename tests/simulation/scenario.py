"""One scenario: a world made from a seed, a while of random use and faults, then everything is made well and must come to rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from streampush.client import Start, Window
from streampush.config import (
    AdmissionConfig,
    Config,
    DeliveryConfig,
    HeartbeatConfig,
    PublishConfig,
    ReconnectConfig,
    SessionConfig,
    StoreConfig,
)
from streampush.protocol.terms import Durability, Milestone, Priority
from streampush.push.push_tokens import push_token
from streampush.push.values import Alert, ChannelRules, Principal
from streampush.server.requests import MAX_OPEN
from tests.simulation.network import Link, Network
from tests.simulation.phone import Habits, Phone
from tests.simulation.publisher import FramedBackend, RestBackend
from tests.simulation.server import ServerProcess
from tests.simulation.store import Disk, Pace
from tests.simulation.truth import Entry, Truth
from tests.simulation.world import World

ANYTHING = ChannelRules(("*",))

HEARTBEAT = HeartbeatConfig(interval=2.0, reply_timeout=0.7, misses=3, min_ping_interval=0.5)
LOST_AFTER = HEARTBEAT.interval * HEARTBEAT.misses + HEARTBEAT.reply_timeout + 1.0
"""Seconds of silence after which a server must know that a peer is gone: its heartbeat, the wheel's ticks and a late ping."""

REST_LIMIT = 400.0
"""Virtual seconds within which a world that was made well must have come to rest."""

MEMORY_PACE = Pace(commit=None)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seed decides before anything happens."""

    phones: int
    topics: int
    actions: int
    gap: float  # mean seconds between two actions
    latency: float
    pace: Pace
    durable: bool  # the disk outlives the process
    backups: bool  # and is now and then put back to an older state
    config: Config
    habits: Habits
    settling: float  # seconds that the store may take to know what its process knows
    alerts: float  # the share of messages with an alert; 0: there is no push service either
    forgetting: float  # the share of applications' deaths that lose their positions, and go by the server's cursors


class Scenario(World):
    """See the module."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        super().__init__(seed, tracing=tracing)
        self.plan = self._make_plan()
        self.truth = Truth(self)
        self.network = Network(self, self.plan.latency)
        durability = Durability.LOCAL_FSYNC if self.plan.durable else Durability.MEMORY
        self.disk = Disk(self.plan.config.store, self.server_ms, lambda: self.new_id("epoch"), durability, self.truth.observe)
        self.truth.watch(self.disk)
        self.server: ServerProcess | None = None
        self.server = self._start_server()
        self.topics = [f"topic{number}" for number in range(self.plan.topics)]
        self.phones = [self._make_phone(number) for number in range(self.plan.phones)]
        self.rest = RestBackend(self, self.network, self.truth, Principal("key", "backend", may_publish=ANYTHING))
        self.framed = FramedBackend(self, self.network, self.truth, Principal("publisher", "billing", may_publish=ANYTHING))
        self.published = 0
        self._store_well_since = 0.0
        self._next_link_fails = False
        self.network.opened = self.link_opened
        self._since: dict[str, float] = {}  # when each phone was seen online first
        self._actions = self._choose_actions()

    # ----------------------------------------------------------------------------------------------------------- the plan

    def _make_plan(self) -> Plan:
        random = self.random
        crowd = random.random() < 0.005
        durable = random.random() < 0.75
        commit = random.choice((0.002, 0.02, 0.3))
        pace = Pace(commit, random.choice((0.0, 0.0, 0.01, 0.2)), random.choice((1, 4, 64))) if durable else MEMORY_PACE
        return Plan(
            phones=random.randint(24, 40) if crowd else random.randint(2, 4),
            topics=random.randint(1, 2),
            actions=random.randint(10, 20) if crowd else random.randint(8, 32),
            gap=random.choice((0.05, 0.2, 0.4)),
            latency=random.choice((0.005, 0.05, 0.4)),
            pace=pace,
            durable=durable,
            backups=durable and random.random() < 0.3,
            config=self._make_config(),
            habits=Habits(
                slow=random.choice((0.0, 0.3, 0.9)),
                slowness=random.choice((0.05, 0.5, 3.0, 8.0)),
                put_off=random.choice((0.0, 0.0, 0.1)),
                poison=random.choice((0.0, 0.0, 0.03)),
                reject=random.choice((0.0, 0.05)),
            ),
            settling=3.0,
            alerts=random.choice((0.0, 0.0, 0.0, 0.0, 0.0, 0.6)),
            forgetting=random.choice((0.0, 0.2, 0.9)),
        )

    def _make_config(self) -> Config:
        random = self.random
        return Config(
            admission=AdmissionConfig(accept_rate=10_000.0),
            session=SessionConfig(
                hello_timeout=3.0,
                frame_timeout=5.0,
                drain_timeout=2.0,
                send_buffer=random.choice((300, 4096, 262_144)),
                send_stall_timeout=8.0,
            ),
            heartbeat=HEARTBEAT,
            reconnect=ReconnectConfig(first_jitter=0.5, backoff_initial=0.2, backoff_max=0.5),
            delivery=DeliveryConfig(
                ack_timeout=random.choice((1.0, 3.0)),
                redelivery_max_interval=4.0,
                max_attempts=random.choice((2, 5, 10)),
                max_held=random.choice((1, 3, 64)),
                page_messages=random.choice((1, 3, 64)),
                page_bytes=random.choice((1024, 262_144)),
                subscribe=("*",),
            ),
            publish=PublishConfig(publisher_rate=1e6, publisher_burst=1_000_000, device_rate=1e5, device_burst=100_000),
            store=StoreConfig(
                history_messages=random.choice((3, 10, 1000, 1000)), history_age=random.choice((5.0, 86_400.0, 86_400.0))
            ),
        )

    def _make_phone(self, number: int) -> Phone:
        random = self.random
        user = random.choice(("", "alice", "bob"))
        principal = Principal("device", f"phone{number}", user, may_subscribe=ANYTHING)
        window = Window(random.choice((1, 3, 256)), random.choice((200, 1000, 1_048_576)))
        phone = Phone(self, self.network, self.truth, principal, window, self.plan.habits)
        phone.floor = self._floor
        phone.start()
        for topic in self.topics:
            if random.random() < 0.8:
                phone.follow(topic, random.choice((Start.UNSPECIFIED, Start.EARLIEST)), durable=random.random() < 0.3)
        return phone

    def server_ms(self) -> int:
        """What the server takes for the time."""
        time_ms = self.wall_ms() if self.server is None else self.server.wall_ms()
        self.truth.notice(time_ms)
        return time_ms

    def _floor(self, channel: str) -> int:
        head = self.disk.look("peek", (channel,))
        return 0 if head is None else head.floor_offset

    def _choose_actions(self) -> tuple[list[Callable[[], None]], list[float]]:
        weighted: list[tuple[Callable[[], None], float]] = [
            (self.publish, 30),
            (self.burst, 3),
            (self.cut_link, 3),
            (self.kill_link, 2),
            (self.trouble_young_link, 1.5),
            (self.kill_phone, 2),
            (self.return_phone, 6),
            (self.change_mind, 2),
            (self.subscribe_phone, 1),
            (self.crash, 1.5),
            (self.drain, 0.4),
            (self.start_server, 6),
            (self.disk_trouble, 1),
            (self.disk_recovers, 3),
            (self.network_trouble, 1),
            (self.network_recovers, 3),
            (self.sweep, 2),
            (self.recall, 2),
            (self.set_clock, 0.5),
            (self.register_token, 12 if self.plan.alerts else 0),
        ]
        return [action for action, _ in weighted], [weight for _, weight in weighted]

    # ------------------------------------------------------------------------------------------------------------ actions

    def publish(self) -> None:
        random = self.random
        channels = [*self.topics, "user:alice", "user:bob", *(phone.device_channel for phone in self.phones[:4])]
        channel = random.choice(channels)
        self.published += 1
        payload = b"p%d." % self.published + b"x" * random.choice((0, 10, 10, 400))
        publisher = self.framed if random.random() < 0.4 else self.rest
        fields = self._fields(channel)
        if random.random() < self.plan.alerts:
            publisher = self.rest
            patient = self.chance(0.2)
            after_ms = 0 if patient else random.choice((0, 300, 5_000))
            fields["alert"] = Alert("Hello", fallback_after_ms=after_ms, only_when_away=patient)
        self.trace("publishes", channel, payload[:12], fields)
        publisher.publish(self.truth.intends(channel, payload, keyed=random.random() < 0.8), 3, **fields)

    def _fields(self, channel: str) -> dict[str, Any]:
        """What is said of a message: mostly nothing."""
        random = self.random
        fields: dict[str, Any] = {}
        choice = random.random()
        now_ms = self.server_ms()
        if choice < 0.15:
            fields["ttl"] = random.choice((0.3, 3.0))
        elif choice < 0.2:
            fields["expires_at_ms"] = now_ms + random.choice((2_000, 20_000))
        elif choice < 0.3:
            fields["collapse_key"] = random.choice(("a", "b"))
            if random.random() < 0.5:
                fields["version"] = random.randint(1, 4)
        elif choice < 0.4:
            fields["deliver_at_ms"] = now_ms + random.choice((500, 2_000, 6_000))
        elif choice < 0.45:
            fields["priority"] = random.choice(list(Priority))
        elif choice < 0.5 and channel.startswith("user:"):
            fields["clear_on_processed"] = True
        return fields

    def recall(self) -> None:
        known = [intent.message_id for intent in self.truth.intents.values() if intent.message_id]
        if known:
            self.rest.recall(self.random.choice(known[-10:]))

    def register_token(self) -> None:
        """A backend registers a push token of a device; now and then it is the one that another device has."""
        phone = self.random.choice(self.phones)
        number = self.phones.index(self.random.choice(self.phones) if self.chance(0.2) else phone)
        self.rest.register_token(phone.name, push_token(b"token%d" % number, "com.example.shop", sandbox=True))

    def set_clock(self) -> None:
        """Somebody sets the machine's wall clock."""
        self.wall_offset_ms += self.random.choice((-100_000, -3_000, 3_000, 100_000))
        self.seen["clock set"] += 1
        self.trace("the wall clock is set to", self.wall_offset_ms, "ms beside the truth")

    def burst(self) -> None:
        for _ in range(self.random.randint(3, 12)):
            self.publish()

    def cut_link(self) -> None:
        links = list(self.network.open.values())
        if links:
            self.random.choice(links).cut()

    def kill_link(self) -> None:
        links = list(self.network.open.values())
        if links:
            self.random.choice(links).die()

    def trouble_young_link(self) -> None:
        """A greeting does not arrive: the connection ends, or goes dead, before it is half a second old."""
        self._next_link_fails = True

    def link_opened(self, link: Link) -> None:
        """See Network.opened."""
        if self._next_link_fails:
            self._next_link_fails = False
            fail = link.cut if self.chance(0.5) else link.die
            self.clock.callLater(self.random.uniform(0.0, 0.5), fail)

    def kill_phone(self) -> None:
        phone = self.random.choice(self.phones)
        if phone.client is not None:
            phone.kill(silently=self.chance(0.4), forgetting=self.chance(self.plan.forgetting))
            if self.chance(0.5):
                phone.start()

    def return_phone(self) -> None:
        for phone in self.phones:
            if not phone.running and self.chance(0.5):
                if phone.client is not None:
                    phone.kill(silently=False)
                phone.start()

    def change_mind(self) -> None:
        phone = self.random.choice(self.phones)
        topic = self.random.choice(self.topics)
        if topic in phone.topics:
            phone.unfollow(topic)
        else:
            start = self.random.choice((Start.UNSPECIFIED, Start.EARLIEST, Start.LATEST))
            phone.follow(topic, start, durable=self.chance(0.3))

    def subscribe_phone(self) -> None:
        """A backend subscribes a device to a topic for good, or ends that."""
        phone, topic, wanted = self.random.choice(self.phones), self.random.choice(self.topics), self.chance(0.6)
        self.rest.subscribe(phone.name, topic, wanted)
        if not wanted:
            phone.ended(topic)

    def crash(self) -> None:
        if not self.server.alive:
            return
        powerless = self.chance(0.3)
        self.seen["power cut" if powerless else "crash"] += 1
        self.server.die()
        for link in list(self.network.open.values()):
            if powerless:
                link.die()
            else:
                link.reset_by_server()
        self.rest.server_died(self.server)
        if self.plan.backups and self.chance(0.7):
            kept = self.random.randint(0, self.disk.writes)
            self.seen["restored backup"] += 1
            self.trace("the disk is put back to", kept, "of", self.disk.writes, "writes")
            self.disk.restore(kept)
            self.truth.restored(kept)
        self._lost_with_process()

    def drain(self) -> None:
        if self.server.alive and not self.server.draining:
            self.trace("server drains")
            self.seen["drain"] += 1
            self.server.stop().addCallback(self._drained, self.server)

    def _drained(self, result: None, server: ServerProcess) -> None:
        """The process ends when its store is idle, as a real one waits for its writer."""
        if not server.alive:
            return
        if not server.store.idle:
            server.clock.callLater(0.1, self._drained, None, server)
            return
        server.die()
        self.rest.server_died(server)
        self._lost_with_process()

    def _lost_with_process(self) -> None:
        """What no process outlives."""
        if self.plan.durable:
            self.disk.disconnected()
        else:
            self.disk.wipe()
            self.truth.wiped()

    def start_server(self) -> None:
        if not self.server.alive:
            self.server = self._start_server()

    def _start_server(self) -> ServerProcess:
        self.trace("server starts")
        server = self.network.server = ServerProcess(
            self, self.plan.config, self.disk, self.plan.pace, self.truth, pushes=bool(self.plan.alerts)
        )
        server.on_undeliverable(lambda letter: self.truth.gave_up(letter, server))
        return server

    def disk_trouble(self) -> None:
        self.disk.full = True
        self.disk.broken = self.chance(0.3)
        self.seen["disk fails" if self.disk.broken else "full disk"] += 1
        self.trace("the disk is full", "and unreadable" if self.disk.broken else "")

    def disk_recovers(self) -> None:
        self.disk.full = self.disk.broken = False

    def network_trouble(self) -> None:
        self.network.refuses = self.random.choice((0.0, 0.5, 1.0))
        self.network.black_holes = self.random.choice((0.0, 0.5))

    def network_recovers(self) -> None:
        self.network.refuses = self.network.black_holes = 0.0

    def sweep(self) -> None:
        self.disk.sweep(2)

    # ----------------------------------------------------------------------------------------------------------- the course

    def run(self) -> None:
        """Raises Broken."""
        actions, weights = self._actions
        mean = self.plan.gap
        for _ in range(self.plan.actions):
            self.pass_time(min(self.random.expovariate(1 / mean), 10 * mean))
            self.random.choices(actions, weights)[0]()
            self.check_running()
        self.make_well()
        self.come_to_rest()
        self.truth.check_promises()
        self.check_receipts()
        self.check_fallbacks()
        self.check_presence()
        self.stop_all()

    def make_well(self) -> None:
        """No more faults. Dead links stay dead: whoever is on one has to find out."""
        self.trace("everything is made well")
        self.disk_recovers()
        self.network_recovers()
        for phone in self.phones:
            phone.calm = True
        while self.server.draining and self.server.alive:
            self.pass_time(0.5)
        self.start_server()

    def come_to_rest(self) -> None:
        end = self.clock.seconds() + REST_LIMIT
        while not self._at_rest():
            if self.clock.seconds() > end:
                for phone in self.phones:
                    for entry in phone.owed():
                        self.broken("I1", f"{phone.name} never got {entry}")
                self.broken("I1", "it never comes to rest:", *(phone.name for phone in self.phones if not phone.online))
            self.return_phone()
            self.pass_time(1.0)

    def _at_rest(self) -> bool:
        if self.rest.open or self.framed.open or self.truth.waiting():
            return False
        return all(phone.running and phone.online and not phone.owed() for phone in self.phones)

    # ----------------------------------------------------------------------------------------------------------- invariants

    def check_running(self) -> None:
        """What holds at every moment: I5 bounds, I6 presence."""
        session = self.plan.config.session
        for connection in self.server.node.connections:
            requests = connection._requests
            if requests is not None and requests._open > MAX_OPEN:
                self.broken("I5", f"{connection.session_id} has {requests._open} requests open")
        for link in self.network.open.values():
            if link.host.most_buffered > session.send_buffer + 70_000:
                self.broken("I5", f"{link.name} has had {link.host.most_buffered} bytes in its send buffer")
        self.check_presence()

    def check_receipts(self) -> None:
        """I1: the receipt of a message to a device or user says what its devices have taken, and what was given up for them."""
        if self.truth.disasters:
            return  # receipts are undone with what they are about
        end = self.clock.seconds() + REST_LIMIT  # the last acknowledgements are on their way, and the disk may be slow
        for log in list(self.truth.view.values()):
            for entry in list(log.values()):
                if not entry.channel.startswith(("device:", "user:")):
                    continue
                for phone in self.phones:
                    while (missing := self._not_in_receipt(entry, phone)) is not None:
                        if self.clock.seconds() > end:
                            self.broken("I1", f"the receipt of {entry} for {phone.name} lacks {missing.name}")
                        self.pass_time(0.5)

    def _not_in_receipt(self, entry: Entry, phone: Phone) -> Milestone | None:
        wanted = Milestone.DEAD_LETTERED if phone.name in entry.dead else Milestone.DELIVERED
        if self.truth.overtaken(entry) or (wanted is Milestone.DELIVERED and entry.message_id not in phone.got):
            return None
        record = self.disk.look("message", (entry.message_id, len(self.phones) + 1))
        if record is None:
            return None  # it has left the log
        if any(row.device_id == phone.name and wanted in row.times for row in record.devices):
            self.seen[f"receipt: {wanted.name.lower()}"] += 1
            return None
        return wanted

    def check_fallbacks(self) -> None:
        """I7: in the end no work is left, and of each message with an alert to a device it is known what became of its push."""
        begun, reconnected = self.clock.seconds(), False  # of a process that died, leases have to run out
        while self.disk.works:
            waited = self.clock.seconds() - begun
            if waited > REST_LIMIT:
                self.broken("I7", f"{self.disk.works} works are never done")
            if waited > REST_LIMIT / 2 and not reconnected:
                reconnected = True
                self.reconnect_all()
            self.pass_time(1.0)
        if self.truth.disasters:
            return
        entries = [entry for log in self.truth.view.values() for entry in log.values() if entry.alert]
        for entry in entries:
            record = self.disk.look("message", (entry.message_id, 1)) if entry.channel.startswith("device:") else None
            if record is None or self.truth.overtaken(entry):
                continue
            results = [row.push for row in record.devices if row.push is not None]
            if not results:
                self.broken("I7", f"what became of the push of {entry} is not known")
            self.seen[f"push: {results[0].outcome.value}"] += 1

    def reconnect_all(self) -> None:
        """A push may wait for a device to go away for as long as it is connected; and one that a backend subscribed while the disk
        was full may follow the topic from its next connection on only: the backend was told to repeat it, and does not."""
        self.trace("all phones connect anew")
        for phone in self.phones:
            phone.kill(silently=False)
            phone.start()
        self.come_to_rest()

    def check_presence(self) -> None:
        """Who has been online, or away, for a heartbeat's time, is known to be."""
        now = self.clock.seconds()
        if not self.server.alive:
            self._since.clear()
            return
        if self.disk.full or self.disk.broken or not self.server.store.idle:
            self._store_well_since = now + self.plan.settling
        for phone in self.phones:
            present = self._present(phone.name)
            if present is None:
                continue
            if phone.online:
                since = self._since.setdefault(phone.name, now)
                if now - since > LOST_AFTER and not present:
                    self.broken("I6", f"{phone.name} is online and held to be away")
            else:
                self._since.pop(phone.name, None)
                away_since = self.network.quiet_at.get(phone.name, 0.0)
                reachable = any(link.alive for link in self.network.of(phone.principal))
                if now - away_since > LOST_AFTER and not reachable and present:
                    self.broken("I6", f"{phone.name} is away and held to be online")

    def _present(self, device_id: str) -> bool | None:
        """What the server answers: from its connections, and from the store once that had time to follow. None: they differ."""
        assert self.server is not None
        here = self.server.service.connections.get(device_id) is not None
        if self.clock.seconds() < self._store_well_since:
            return here
        stored = self.disk.look("session", (device_id,)) is not None
        if stored is not here and self.clock.seconds() > self._store_well_since + LOST_AFTER:
            self.broken("I6", f"{device_id} is connected: {here}, and the store says {stored}")
        return here if stored is here else None

    def stop_all(self) -> None:
        """Everybody leaves; then nothing is left."""
        self.trace("everybody leaves")
        for client in (*self.phones, self.framed):
            client.leave()
        end = self.clock.seconds() + LOST_AFTER + 10.0
        while self._leaving() and self.clock.seconds() < end:
            self.pass_time(0.5)
        while not self.server.store.idle and self.clock.seconds() < end + REST_LIMIT:
            self.pass_time(0.5)  # a slow disk has much to do yet
        for client in (*self.phones, self.framed):
            if client.left():
                self.broken("I5", f"a client that has stopped still has {client.left()}")
        self._nothing_is_left()

    def _leaving(self) -> bool:
        """Whether somebody is still on the way out."""
        waits = any(client.left() for client in (*self.phones, self.framed))
        return waits or bool(self.server.node.connections) or not self.server.store.idle

    def _nothing_is_left(self) -> None:
        server = self.server
        assert server is not None
        service = server.service
        left = {
            "connections": len(server.node.connections),
            "admitted": server.admission.connections,
            "handshakes": server.admission.handshakes,
            "scheduled": len(server.node._wheel),
            "devices": len(service.connections),
            "followed channels": len(service.fanout._channels),
            "due channels": len(service.fanout._due),
            "cursor moves": len(service._cursors._due),
            "present": sum(self.disk.look("session", (phone.name,)) is not None for phone in self.phones),
            "store operations": 0 if server.store.idle else 1,
        }
        if any(left.values()):
            self.broken("I5", "left behind:", {name: count for name, count in left.items() if count})
        server.stop()
        self.pass_time(1.0)
        if server.clock.pending():
            self.broken("I5", "still scheduled:", server.clock.pending())
        server.clock.alive = False


EXPECTED = frozenset(
    {
        *("crash", "power cut", "commit kept by a crash", "commit lost by a crash", "drain", "restored backup", "clock set"),
        *("cut", "half-open", "full disk", "disk fails", "closed: 1001", "closed: 1006", "closed: 2001", "closed: 3008"),
        *("redelivery", "put off", "rejected", "dead letter", "recall notice", "recall heard", "duplicate publish"),
        *("receipt: dead_lettered", "receipt: delivered"),
        *("pushed", "push withdrawn", "push: delivered", "push: cancelled", "push: not_sent"),
        *("overtaken version", "scheduled", "scheduled went out", "durable subscription", "subscribed by a backend"),
        *(f"lost: {reason}" for reason in ("epoch_changed", "trimmed", "expired", "rewound", "id_mismatch")),
    }
)
"""What has to happen now and then, or the simulation is about less than it says: see World.seen."""


RARE = frozenset(
    {"push withdrawn", "lost: id_mismatch", "overtaken version", "dead letter", "receipt: dead_lettered", "disk fails"}
)
"""Of these: what a few hundred scenarios may do without."""


def simulate(seed: int, *, tracing: bool = False) -> Scenario:
    """Runs a scenario to its end. Raises Broken with a note that says how to replay it."""
    scenario = Scenario(seed, tracing=tracing)
    try:
        scenario.run()
    except BaseException as error:
        error.add_note(f"replay it with: make simulate SEED={seed}")
        if tracing:
            scenario.trace(repr(error))
        raise
    return scenario
