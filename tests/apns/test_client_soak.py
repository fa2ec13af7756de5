"""Twenty thousand pushes, with all that goes wrong now and then: each ends, and memory stays as it is. `make soak` sends more."""

from __future__ import annotations

from tests.apns.soak import ROUND, Soak


def test_20_000_pushes_leave_nothing_behind() -> None:
    soak = Soak()
    for _ in range(12):
        soak.round()
    before = soak.blocks()
    for _ in range(8):
        soak.round()
    grown = soak.blocks() - before
    assert soak.sent == sum(soak.outcomes.values()) == 20 * ROUND
    assert soak.outcomes["delivered"] == soak.world.apple.ledger.accepted - soak.outcomes["unknown"]
    assert soak.outcomes["delivered"] > 0.95 * soak.sent
    assert grown < ROUND, f"{grown} blocks more after {8 * ROUND} pushes"
