"""Apps of a configuration on a fake clock: their files are real, and each connection is a wire in memory to a simulated Apple."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from streampush.apns.app_clients import AppClients
from streampush.apns.apps import Apps, Route
from streampush.apns.outcome import Outcome
from streampush.apns.ports import NoMetrics
from streampush.apns.push import ApnsPush
from streampush.apns.sender import ApnsSender
from streampush.apns.simulator import Devices, Orders, SimulatedApple, Validation, mint_key
from streampush.apns.simulator.orders import Order
from streampush.apns.simulator.server import AppleProtocol
from streampush.apns.verdicts import Verdicts
from streampush.config import ApnsAppConfig, ApnsConfig, Config
from streampush.protocol.terms import Priority
from streampush.push.alerts import canonical, split
from streampush.push.values import Alert, PushAnswer, PushOrder, PushToken
from tests.apns.minting import write_private
from tests.apns.pooling import MemoryDialer
from tests.apns.simulator.providers import PAYLOAD, TOPIC
from tests.apns.wire import advance, leave_nothing

WALL = 1_790_000_000.0
KEYS = {name: mint_key(f"KEY000000{number}") for number, name in enumerate(("first", "second", "unknown"))}
ALERT = split(canonical(Alert("Hello"), "device:phone"))[1]


class PutOff(NoMetrics):
    """Counts what had no place, by app, and how requests about channels ended."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.broadcasts: Counter[tuple[str, str, str]] = Counter()

    def broadcast_ended(self, app: str, request: str, outcome: str, reason: str) -> None:
        self.broadcasts[request, outcome, reason] += 1

    def order_put_off(self, app: str) -> None:
        self.counts[app] += 1


@dataclass
class AppsWorld:
    """`orders` of the simulated Apple, which knows the keys `first` and `second`."""

    root: Path
    orders: tuple[Order, ...] = ()
    seed: int = 1
    limits: ApnsConfig = field(default_factory=ApnsConfig)

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.random = Random(self.seed)
        for name, minted in KEYS.items():
            write_private(self.root / f"{name}.p8", minted.p8)
        self.devices = Devices()
        self.apple = SimulatedApple(
            Validation(keys=(KEYS["first"].key, KEYS["second"].key)),
            Orders(self.orders, self.seed),
            devices=self.devices,
            wall_offset=WALL,
        )
        self.put_off = PutOff()
        self.dialers: list[MemoryDialer] = []
        self.servers: list[AppleProtocol] = []
        self.apps = Apps(self.configured(self.app()), self.wall)
        self.clients = AppClients(
            self.apps,
            self.limits,
            self.clock,
            self.make_dialer,
            wall=self.wall,
            new_id=self.new_id,
            metrics=self.put_off,
            random=self.random,
        )
        self.verdicts = Verdicts(self.apps)
        self.sender = ApnsSender(
            self.apps,
            self.clients,
            self.verdicts,
            self.clock,
            max_in_flight=100,
            wall=self.wall,
            metrics=self.put_off,
            random=self.random,
        )
        self.outcomes: dict[str, list[Outcome]] = {}
        self.answers: list[PushAnswer] = []

    def wall(self) -> float:
        return WALL + self.clock.seconds()

    def new_id(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def make_dialer(self, _route: Route) -> MemoryDialer:
        dialer = MemoryDialer(self.clock, self.make_server, 0.01)
        self.dialers.append(dialer)
        return dialer

    def make_server(self) -> AppleProtocol:
        server = AppleProtocol(self.clock, self.apple.connect(self.clock.seconds()))
        self.servers.append(server)
        return server

    # ------------------------------------------------------------------------------------------------------- the configuration

    def app(self, key: str = "first", **changes: object) -> ApnsAppConfig:
        minted = KEYS[key].key
        app = ApnsAppConfig(
            "shop", TOPIC, key=str(self.root / f"{key}.p8"), team_id=minted.team_id, key_id=minted.key_id, environment="sandbox"
        )
        return replace(app, **changes)  # type: ignore[arg-type]

    def configured(self, *apps: ApnsAppConfig) -> Config:
        return Config(file="x.toml", apns=replace(self.limits, apps=apps))

    def reload(self, *apps: ApnsAppConfig) -> int:
        """Gives how many errors there were."""
        return len(self.apps.reload(self.configured(*apps)))

    # ---------------------------------------------------------------------------------------------------------------- pushing

    def push(self, count: int = 1, timeout: float = 20.0) -> None:
        """Over the client of the app `shop`."""
        client = self.clients.all["shop"]
        for _ in range(count):
            apns_id = self.new_id()
            outcomes: list[Outcome] = []
            self.outcomes[apns_id] = outcomes
            push = ApnsPush(self.random.randbytes(32).hex(), PAYLOAD, TOPIC, apns_id=apns_id)
            client.send(push, self.clock.seconds() + timeout, outcomes.append)

    def order(self, **changes: object) -> PushOrder:
        token = PushToken(self.random.randbytes(32), TOPIC, sandbox=True)
        message = "01JZ0000000000000000000000"
        order = PushOrder(self.new_id(), message, "device:phone", "phone", token, ALERT, Priority.NORMAL, "", 0)
        return replace(order, **changes)  # type: ignore[arg-type]

    def send(self, order: PushOrder) -> None:
        """As the application does; what it is answered is in `answers`."""
        sending: Deferred[PushAnswer] = Deferred.fromCoroutine(self.sender.send(order))
        sending.addCallback(self.answers.append)

    def answer(self, order: PushOrder, seconds: float = 30.0) -> PushAnswer:
        """The answer to one order."""
        self.send(order)
        self.advance(seconds)
        return self.answers.pop()

    def advance(self, seconds: float) -> None:
        advance(self.clock, seconds)

    def delivered_once(self) -> bool:
        """Whether every push over a client ended once, delivered, and Apple has it once."""
        return all(
            len(outcomes) == 1 and type(outcomes[0]).__name__ == "Delivered" and self.apple.ledger.times_accepted(apns_id) == 1
            for apns_id, outcomes in self.outcomes.items()
        )

    def stop(self) -> None:
        """Nothing may be left behind."""
        leave_nothing(self.clock, self.clients.stop(), self.servers)
        assert not self.apple.ledger.faults, self.apple.ledger.faults
