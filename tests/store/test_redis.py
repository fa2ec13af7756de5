"""The store in Redis: the contract, on a real server."""

from __future__ import annotations

from tests.store.contract_devices import DeviceContract
from tests.store.contract_messages import MessageContract
from tests.store.contract_nodes import NodeContract
from tests.store.contract_outbox import OutboxContract
from tests.store.contract_presence import PresenceContract
from tests.store.contract_pushes import PushContract
from tests.store.contract_receipts import ReceiptContract
from tests.store.redis_world import RedisTestCase


class RedisStoreTests(
    RedisTestCase,
    ReceiptContract,
    MessageContract,
    PushContract,
    DeviceContract,
    PresenceContract,
    NodeContract,
    OutboxContract,
):
    """Each part of the contract that is there."""
