"""What the client says of a push is true, whatever the simulated Apple does, in whatever order.

Every push ends exactly once and by its deadline; Delivered means that Apple took it; NotSent and Refused that it was never seen;
and Apple takes none twice, but for what was unknown and was sent again because that does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.client_limits import ClientLimits
from streampush.apns.http2 import Limits
from streampush.apns.outcome import UnknownPolicy
from streampush.apns.provider_token import ProviderToken
from streampush.apns.retry import RetryPolicy
from streampush.apns.simulator.orders import Order, ResetStream
from tests.apns.clienting import KEY, STRANGERS_KEY, ClientWorld
from tests.apns.simulator.test_against_client import orders


@dataclass(frozen=True)
class Push:
    count: int
    timeout: float
    collapse_id: str


@dataclass(frozen=True)
class Pass:
    seconds: float


@dataclass(frozen=True)
class Cancel:
    which: int


@dataclass(frozen=True)
class Renew:
    known: bool
    with_pool: bool


Step = Push | Pass | Cancel | Renew

steps = st.lists(
    st.one_of(
        st.builds(Push, st.integers(1, 40), st.sampled_from([0.0, 0.3, 2.0, 8.0, 30.0]), st.sampled_from(["", "", "score"])),
        st.builds(Pass, st.sampled_from([0.001, 0.05, 0.4, 3.0, 20.0])),
        st.builds(Cancel, st.integers(0, 200)),
        st.builds(Renew, st.booleans(), st.booleans()),
    ),
    min_size=1,
    max_size=12,
)


def take(world: ClientWorld, step: Step) -> None:
    match step:
        case Push(count, timeout, collapse_id):
            world.push(count, timeout=timeout, collapse_id=collapse_id)
        case Pass(seconds):
            world.advance(seconds)
        case Cancel(which):
            if which < len(world.sent) and (sending := world.sent[which].sending) is not None:
                world.client.cancel(sending)
        case Renew(known, with_pool):
            old = world.pool
            if with_pool:
                world.pool = world.make_pool()
            world.client.use(ProviderToken(KEY if known else STRANGERS_KEY), world.pool if with_pool else None)
            if with_pool:
                old.stop()


@given(
    what=st.lists(orders, max_size=3),
    steps=steps,
    seed=st.integers(0, 2**32),
    policy=st.sampled_from(UnknownPolicy),
    queued=st.sampled_from([5, 1000]),
)
@settings(max_examples=120, deadline=None)
def test_what_the_client_says_is_true(what: list[Order], steps: list[Step], seed: int, policy: UnknownPolicy, queued: int) -> None:
    # REFUSED_STREAM behind the processing is a lie that no client can see through.
    honest = tuple(order for order in what if not (isinstance(order, ResetStream) and order.code == 7))
    world = ClientWorld(
        honest,
        seed=seed,
        retry=RetryPolicy(server_error_wait=0.0, unknown=policy),
        limits=ClientLimits(max_queued=queued, answer_timeout=5.0),
        http2=Limits(settings_timeout=2, ping_interval=5, ping_timeout=2),
    )
    for step in steps:
        take(world, step)
    world.advance(31.0)
    assert all(sent.outcomes for sent in world.sent)
    world.stop()
