"""A local Apple: validates pushes as Apple does, misbehaves on order, and remembers what it processed.

    apple = SimulatedApple(Validation(keys=(minted.key,)), PRESETS["refuse"].orders)
    connection = apple.connect(clock.seconds())        # bytes in, bytes out; or `server.listen` for TLS on a port
    ...
    assert not apple.ledger.doubles()

docs/apns.md, section "The simulator".
"""

from __future__ import annotations

from streampush.apns.simulator.accounts import (
    Devices,
    Environment,
    MintedKey,
    SigningKey,
    mint_key,
    read_key,
    token_hash,
)
from streampush.apns.simulator.apple import SimulatedApple
from streampush.apns.simulator.broadcasts import Channels, Kind
from streampush.apns.simulator.connection import AppleConnection, Ending
from streampush.apns.simulator.judging import UpdateScope, Validation
from streampush.apns.simulator.order_files import describe, load_orders, preset
from streampush.apns.simulator.orders import PRESETS, Orders, When
from streampush.apns.simulator.reasons import Reason
from streampush.apns.simulator.records import ClientFault, Ledger, Processed

__all__ = [
    "PRESETS",
    "AppleConnection",
    "Channels",
    "ClientFault",
    "Devices",
    "Ending",
    "Environment",
    "Kind",
    "Ledger",
    "MintedKey",
    "Orders",
    "Processed",
    "Reason",
    "SigningKey",
    "SimulatedApple",
    "UpdateScope",
    "Validation",
    "When",
    "describe",
    "load_orders",
    "mint_key",
    "preset",
    "read_key",
    "token_hash",
]
