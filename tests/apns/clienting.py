"""A client on a fake clock: its pool is joined to simulated Apples by wires in memory, and each push is known with its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from twisted.internet.task import Clock

from streampush.apns.breaker import Breaker, BreakerPolicy
from streampush.apns.client import ApnsClient
from streampush.apns.client_limits import ClientLimits
from streampush.apns.concurrency import Concurrency, ConcurrencyPolicy
from streampush.apns.http2 import Limits
from streampush.apns.lanes import Lanes
from streampush.apns.outcome import Delivered, Outcome, UnknownPolicy
from streampush.apns.pace import Pace
from streampush.apns.pool import Pool
from streampush.apns.pool_limits import PoolLimits
from streampush.apns.provider_token import ProviderToken
from streampush.apns.push import ApnsPush, PushType
from streampush.apns.rates import AppRate, AppRates, RestingDevices
from streampush.apns.retry import Retries, RetryBudget, RetryPolicy
from streampush.apns.sending import Sending
from streampush.apns.signing_key import parse_signing_key
from streampush.apns.simulator import Devices, Orders, SimulatedApple, UpdateScope, Validation, mint_key
from streampush.apns.simulator.orders import Order
from streampush.apns.simulator.server import AppleProtocol
from tests.apns.chaos import Fate, check_told, how_of_outcome
from tests.apns.counted import Counted
from tests.apns.pooling import MemoryDialer
from tests.apns.simulator.providers import MINTED, PAYLOAD, TOPIC
from tests.apns.wire import advance, leave_nothing

WALL = 1_790_000_000.0
KEY = parse_signing_key(MINTED.p8, MINTED.key.team_id, MINTED.key.key_id)
STRANGER = mint_key()
"""A key that the simulated Apple does not know."""
STRANGERS_KEY = parse_signing_key(STRANGER.p8, STRANGER.key.team_id, STRANGER.key.key_id)


@dataclass(slots=True, eq=False)
class Sent:
    """A push and what became of it."""

    push: ApnsPush
    deadline: float
    outcomes: list[Outcome] = field(default_factory=list)
    ended_at: float = 0.0
    sending: Sending | None = None

    @property
    def outcome(self) -> Outcome | None:
        return self.outcomes[0] if self.outcomes else None


@dataclass
class ClientWorld:
    """Orders of the simulated Apple, and the policies of the client."""

    orders: tuple[Order, ...] = ()
    seed: int = 1
    latency: float = 0.01
    max_streams: int = 1000
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(server_error_wait=0.0))
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    concurrency: ConcurrencyPolicy = field(default_factory=ConcurrencyPolicy)
    limits: ClientLimits = field(default_factory=ClientLimits)
    pool_limits: PoolLimits = field(default_factory=PoolLimits)
    http2: Limits | None = None
    rates: dict[str, AppRate] = field(default_factory=dict)
    scope: UpdateScope = UpdateScope.CONNECTION
    per_device: int = 0
    topics: frozenset[str] = frozenset()
    ceiling: int = 1000
    unique_ids: bool = False
    apple_kept: int = 200_000
    """Records that Apple keeps of what it processed."""
    wall_error: float = 0.0
    """Seconds that our wall clock is ahead of Apple's; then answers have a date."""

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.devices = Devices()
        validation = Validation(
            keys=(MINTED.key,),
            update_scope=self.scope,
            per_device=self.per_device,
            topics=self.topics,
            send_date=bool(self.wall_error),
        )
        self.apple = SimulatedApple(
            validation,
            Orders(self.orders, self.seed),
            devices=self.devices,
            max_streams=self.max_streams,
            wall_offset=WALL,
            kept=self.apple_kept,
        )
        self.servers: list[AppleProtocol] = []
        self.random = Random(self.seed)
        self.metrics = Counted()
        self.dialer = MemoryDialer(self.clock, self.make_server, self.latency)
        self.pool = self.make_pool()
        budget = RetryBudget(0.0)
        self.pace = Pace(
            "shop",
            breaker=Breaker(0.0, self.breaker),
            concurrency=Concurrency(0.0, self.concurrency, ceiling=self.ceiling),
            lanes=Lanes(),
            devices=RestingDevices(),
            rates=AppRates(self.rates, 0.0),
            retries=Retries(self.retry, budget, Random(self.seed)),
            budget=budget,
        )
        self.token = ProviderToken(KEY)
        self.client = ApnsClient(
            "shop",
            "api.push.apple.com",
            self.pool,
            self.pace,
            self.clock,
            token=self.token,
            wall=self.wall,
            new_id=self.new_id,
            limits=self.limits,
            metrics=self.metrics,
            unique_ids=self.unique_ids,
        )
        self.sent: list[Sent] = []
        self.then: Callable[[], None] | None = None
        """Is called when a push ends."""

    def make_pool(self) -> Pool:
        return Pool(
            self.dialer, self.clock, limits=self.pool_limits, http2=self.http2, metrics=self.metrics, random=Random(self.seed)
        )

    def make_server(self) -> AppleProtocol:
        server = AppleProtocol(self.clock, self.apple.connect(self.clock.seconds()))
        self.servers.append(server)
        return server

    def wall(self) -> float:
        return WALL + self.wall_error + self.clock.seconds()

    def new_id(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def new_push(self, **changes: object) -> ApnsPush:
        given: dict[str, object] = {
            "device_token": self.random.randbytes(32).hex(),
            "payload": PAYLOAD,
            "topic": TOPIC,
            "push_type": PushType.ALERT,
            "apns_id": self.new_id(),
        }
        return ApnsPush(**(given | changes))  # type: ignore[arg-type]

    def push(self, count: int = 1, timeout: float = 10.0, **changes: object) -> list[Sent]:
        new = []
        for _ in range(count):
            sent = Sent(self.new_push(**changes), self.clock.seconds() + timeout)
            new.append(sent)
            self.sent.append(sent)
            sent.sending = self.client.send(sent.push, sent.deadline, lambda outcome, sent=sent: self._ended(sent, outcome))
        return new

    def _ended(self, sent: Sent, outcome: Outcome) -> None:
        sent.outcomes.append(outcome)
        sent.ended_at = self.clock.seconds()
        if self.then is not None:
            self.then()

    def advance(self, seconds: float) -> None:
        advance(self.clock, seconds)

    def outcomes(self) -> set[Outcome | None]:
        return {None if isinstance(sent.outcome, Delivered) else sent.outcome for sent in self.sent}

    @property
    def ended(self) -> bool:
        """All pushes so far."""
        return all(sent.outcomes for sent in self.sent)

    def fates(self) -> list[Fate]:
        """Of all pushes, which have ended."""
        policy = self.retry.unknown
        found = []
        for sent in self.sent:
            (outcome,) = sent.outcomes
            how, reason = how_of_outcome(outcome)
            if isinstance(outcome, Delivered):
                assert outcome.apns_id == sent.push.apns_id
            harmless = policy is UnknownPolicy.ALWAYS or (policy is UnknownPolicy.COLLAPSIBLE and bool(sent.push.collapse_id))
            found.append(Fate(sent.push.apns_id, how, reason, sent.ended_at - sent.deadline, harmless))
        return found

    def delivered(self) -> int:
        return sum(isinstance(sent.outcome, Delivered) for sent in self.sent)

    def check(self) -> None:
        """Every push ended once, in time, and what the client says is what Apple knows."""
        check_told(self.fates(), self.apple.ledger)

    def stop(self) -> None:
        """Nothing may be left behind."""
        self.client.stop()
        leave_nothing(self.clock, self.pool.stop(), self.servers)
        figures = self.client.figures()
        assert (figures.queued, figures.resting, figures.held, figures.queued_bytes, figures.in_flight) == (0, 0, 0, 0, 0)
        self.check()
