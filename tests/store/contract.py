"""What every implementation of push.store_ports.Store does. Mix it into a trial TestCase and give `make_store`.

The tests are coroutines: a store may answer at once, or from a thread or a server when the reactor turns.
"""

from __future__ import annotations

from tests.store.contract_base import LIMITS, NOW_MS
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

__all__ = ["LIMITS", "NOW_MS", "StoreContract"]


class StoreContract(
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
    """All of it. `self.now_ms` is the wall clock that the store must be given."""
