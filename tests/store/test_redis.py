"""The store in Redis: the contract, on a real server."""

from __future__ import annotations

from tests.store.contract_devices import DeviceContract
from tests.store.contract_fallback import FallbackContract
from tests.store.contract_keys import KeyContract
from tests.store.contract_logs import LogContract
from tests.store.contract_messages import MessageContract
from tests.store.contract_nodes import NodeContract
from tests.store.contract_outbox import OutboxContract
from tests.store.contract_presence import PresenceContract
from tests.store.contract_publishing import PublishingContract
from tests.store.contract_pushes import PushContract
from tests.store.contract_receipts import ReceiptContract
from tests.store.contract_schedule import ScheduleContract
from tests.store.redis_world import RedisTestCase


class RedisStoreTests(
    RedisTestCase,
    LogContract,
    KeyContract,
    ScheduleContract,
    ReceiptContract,
    MessageContract,
    DeviceContract,
    PresenceContract,
    NodeContract,
    OutboxContract,
    PublishingContract,
    FallbackContract,
    PushContract,
):
    """Each part of the contract that is there."""
