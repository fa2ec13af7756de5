"""The simulated Apple: what its connections share, and the one object that a test or a command makes."""

from __future__ import annotations

from collections.abc import Callable

from streampush.apns.simulator.accounts import Devices
from streampush.apns.simulator.book import OrderBook
from streampush.apns.simulator.broadcasts import Channels
from streampush.apns.simulator.connection import AppleConnection
from streampush.apns.simulator.judging import Judge, Validation
from streampush.apns.simulator.orders import Orders
from streampush.apns.simulator.records import DEFAULT_KEPT, Ledger, Processed
from streampush.apns.simulator.wire import DEFAULT_MAX_STREAMS


class SimulatedApple:
    """Apple's push service as far as a provider sees it. No IO; time is an input.

    `devices`: tokens that it knows more of; may be changed at any time. `channels`: those for broadcasts. `wall_offset`: seconds to
    add to every `now` to get the wall time, which provider tokens and timestamps are about; 0 with a fake clock. `max_streams`:
    requests at once on a connection. `kept`: records that `ledger` keeps. `on_processed` is told of each push with its payload,
    which the records leave out.
    """

    def __init__(
        self,
        validation: Validation | None = None,
        orders: Orders | None = None,
        *,
        devices: Devices | None = None,
        wall_offset: float = 0.0,
        max_streams: int = DEFAULT_MAX_STREAMS,
        kept: int = DEFAULT_KEPT,
        on_processed: Callable[[Processed, bytes], None] | None = None,
    ) -> None:
        orders = orders or Orders()
        self.devices = devices or Devices()
        self.channels = Channels(orders.seed)
        self.ledger = Ledger(kept)
        self._max_streams = max_streams
        self._on_processed = on_processed
        self._book = OrderBook(orders)
        self._judge = Judge(validation or Validation(), self.devices, self.channels, wall_offset=wall_offset, seed=orders.seed)

    def connect(self, now: float) -> AppleConnection:
        """A new connection."""
        self.ledger.connections += 1
        return AppleConnection(
            self._book.begin_connection(),
            self._judge,
            self._book,
            self.ledger,
            self._judge.meet(),
            now,
            max_streams=self._max_streams,
            on_processed=self._on_processed,
        )
