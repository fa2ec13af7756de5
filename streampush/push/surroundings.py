"""What the application is given by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from streampush.push.bus import Bus, NoBus
from streampush.push.ports import Delayer, Encoder, PushMetrics, PushSender, Scheduler, Spawner
from streampush.push.shared_rates import RateStore
from streampush.push.store_ports import Store


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the service needs of the process it lives in, which `run` names. `retry_later` calls its argument after a pause.

    `bus`: the way to other nodes; what it hears is for hearing.NodeHearing. `rates`: what they share of rates, if there are others.

    `sender`: the way to devices that are away; None: there is none, and alerts of messages are checked but not kept.
    """

    store: Store
    encode: Encoder
    metrics: PushMetrics
    clock: Callable[[], float]
    wall_ms: Callable[[], int]
    new_id: Callable[[int], str]
    call_soon: Scheduler
    call_later: Delayer
    retry_later: Callable[[Callable[[], None]], object]
    spawn: Spawner
    run: str = ""
    sender: PushSender | None = None
    bus: Bus = field(default_factory=NoBus)
    rates: RateStore | None = None
