"""Who publishes: backends over REST, which call the service as the REST API does, and backends over the framed protocol.

Both repeat what was not answered, as a careful backend does, and remember exactly what they were promised.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from streampush.client import ClientError, ClientStopped, RequestRefused, StreamClient
from streampush.errors import Refused
from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.push.values import Principal, Published, PublishRequest, PushToken
from tests.simulation.clock import ProcessClock
from tests.simulation.network import Network
from tests.simulation.server import ServerProcess
from tests.simulation.truth import Intent, Truth
from tests.simulation.world import Broken, World

PASSING = frozenset({Code.STORE_UNAVAILABLE, Code.DRAINING})
"""Refusals after which a publisher tries again: the store is away, the server stops."""

EXPECTED = PASSING | {Code.UNKNOWN_RECIPIENT, Code.MESSAGE_EXPIRED}
"""All that a publisher may meet in a simulation: nobody of this name may have come yet; a repeated try may come too late."""

RETRY = 0.7
"""Seconds between two tries of one publish."""

REQUEST_TIMEOUT = 4.0


@dataclass(slots=True, eq=False)
class Job:
    """A publish that is not settled: neither acknowledged, nor refused for good, nor given up after its tries."""

    intent: Intent
    fields: dict[str, Any]
    tries: int
    server: ServerProcess | None = field(default=None, repr=False)  # who owes the answer

    @property
    def key(self) -> str:
        """The idempotency key of all its tries; empty: each may store it."""
        return self.intent.payload.partition(b".")[0].decode() if self.intent.keyed else ""


class Backend:
    """What both kinds have. `open` are the jobs that are not settled."""

    def __init__(self, world: World, network: Network, truth: Truth) -> None:
        self.open: dict[Job, None] = {}
        self.world = world
        self.network = network
        self.truth = truth
        self.clock = ProcessClock(world.clock)

    def publish(self, intent: Intent, tries: int, **fields: Any) -> None:
        """Publishes, at most so many times until it is acknowledged or refused for good."""
        job = Job(intent, fields, tries)
        self.open[job] = None
        self._try(job)

    def left(self) -> list[str]:
        """What is still scheduled."""
        return self.clock.pending()

    def _try(self, job: Job) -> None:
        if job.tries < 1:
            self._settled(job)
            return
        job.tries -= 1
        job.server = self.network.server
        self._send(job)

    def _send(self, job: Job) -> None:
        raise NotImplementedError

    def _again(self, job: Job) -> None:
        job.server = None
        self.clock.callLater(RETRY, self._try, job)

    def _settled(self, job: Job) -> None:
        self.open.pop(job, None)

    def _answered(self, answer: Published | m.PublishOk, job: Job, server: ServerProcess) -> None:
        """This process has said that it is stored."""
        self.truth.acknowledged(job.intent, server.view, answer)
        self._settled(job)

    def _refused(self, code: Code | int, detail: str, job: Job) -> None:
        if code not in EXPECTED:
            self.world.broken("publish", f"{job.intent} is refused: {int(code)} {detail}")
        if code in PASSING:
            self._again(job)
        else:
            self._settled(job)


class RestBackend(Backend):
    """Publishes over REST; an answer is lost when the process that owes it dies."""

    def __init__(self, world: World, network: Network, truth: Truth, principal: Principal) -> None:
        super().__init__(world, network, truth)
        self._principal = principal

    def server_died(self, server: ServerProcess) -> None:
        """Whoever waits for its answer has lost the connection, and does not know what was done."""
        for job in list(self.open):
            if job.server is server:
                self._again(job)

    def recall(self, message_id: str) -> None:
        """Takes a message back, once; nobody is told how that ended."""
        server = self.network.server
        if server is not None and server.alive:
            self.world.trace("recalls", message_id)
            asked = Deferred.fromCoroutine(server.service.recall(self._principal, message_id))
            asked.addErrback(self._not_done, server)

    def subscribe(self, device_id: str, topic: str, wanted: bool) -> None:
        """Subscribes a device, or ends that, once; nobody is told how that ended."""
        server = self.network.server
        if server is not None and server.alive:
            self.world.trace("subscribes" if wanted else "unsubscribes", device_id, topic)
            self.world.seen["subscribed by a backend"] += wanted
            change = server.service.subscribe_device if wanted else server.service.unsubscribe_device
            asked = Deferred.fromCoroutine(change(device_id, topic))
            asked.addErrback(self._not_done, server)

    def register_token(self, device_id: str, token: PushToken) -> None:
        """Registers a device's push token, once; nobody is told how that ended."""
        server = self.network.server
        if server is not None and server.alive:
            self.world.trace("registers a push token of", device_id)
            asked = Deferred.fromCoroutine(server.service.devices.register_token(device_id, token))
            asked.addErrback(self._not_done, server)

    def _not_done(self, failure: Failure, server: ServerProcess) -> None:
        if failure.check(Broken) or not server.alive:
            return  # what a process leaves behind is collected in any order, and wakes what waits for it
        if not failure.check(Refused) or failure.value.code not in EXPECTED:
            self.world.broken("fault", f"the server raised {failure.getTraceback()}")

    def _send(self, job: Job) -> None:
        server = job.server
        if server is None or not server.alive:
            self._again(job)
            return
        request = PublishRequest(job.intent.channel, job.intent.payload, idempotency_key=job.key, **job.fields)
        asked = Deferred.fromCoroutine(server.service.publish(self._principal, request))
        asked.addCallback(self._answered, job, server)
        asked.addErrback(self._failed, job, server)

    def _failed(self, failure: Failure, job: Job, server: ServerProcess) -> None:
        if failure.check(Broken) or not server.alive:
            return
        if not failure.check(Refused):
            self.world.broken("fault", f"publish raised {failure.getTraceback()}")
        self._refused(failure.value.code, failure.value.detail, job)


class FramedBackend(Backend):
    """Publishes with the reference client."""

    def __init__(self, world: World, network: Network, truth: Truth, principal: Principal) -> None:
        super().__init__(world, network, truth)
        self.client = StreamClient(
            self.clock,  # type: ignore[arg-type]  # what the client needs of IReactorTime
            [("server", 7443)],
            network.security(principal),
            random=Random(world.random.getrandbits(32)),
            request_timeout=REQUEST_TIMEOUT,
        )
        self.client.start()

    def leave(self) -> Deferred[None]:
        """Stops for good; fires when the connection is gone."""
        return Deferred.fromCoroutine(self.client.stop())

    def _send(self, job: Job) -> None:
        fields = dict(job.fields, idempotency_key=job.key)
        for name in ("deliver_at", "expires_at"):
            if f"{name}_ms" in fields:
                fields[name] = fields.pop(f"{name}_ms") / 1000
        asked = Deferred.fromCoroutine(self.client.publish(job.intent.channel, job.intent.payload, **fields))
        asked.addCallback(self._published, job)
        asked.addErrback(self._failed, job)

    def _published(self, answer: m.PublishOk, job: Job) -> None:
        """The client may have asked again on a new connection: it is the present one that has answered."""
        connection: Any = self.client._line._connection
        self._answered(answer, job, connection.transport.link.server)

    def _failed(self, failure: Failure, job: Job) -> None:
        if failure.check(Broken):
            return
        if failure.check(RequestRefused):
            self._refused(failure.value.code, failure.value.detail, job)
        elif failure.check(ClientStopped):
            self._settled(job)
        elif failure.check(ClientError):
            self._again(job)
        else:
            self.world.broken("fault", f"publish raised {failure.getTraceback()}")
