"""The h2 package in the role of a server: an implementation of RFC 9113 that is not ours, to talk to and to be checked by."""

from __future__ import annotations

from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.settings import SettingCodes


@dataclass
class Seen:
    """A request as the server has it."""

    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    ended: bool = False
    reset: bool = False


@dataclass
class Unsent:
    """What is left of an answer."""

    body: bytes
    padding: int | None
    trailers: bool


@dataclass
class H2Server:
    """Collects requests; h2 raises on everything of the client that breaks the protocol."""

    settings: dict[SettingCodes, int] = field(default_factory=dict)
    seen: dict[int, Seen] = field(default_factory=dict)
    acknowledge: bool = True  # open the windows again for what was read

    def __post_init__(self) -> None:
        self.connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.connection.initiate_connection()
        if self.settings:
            self.connection.update_settings(self.settings)
        self._unsent: dict[int, Unsent] = {}

    def read(self, data: bytes) -> list[Event]:
        events = self.connection.receive_data(data)
        for event in events:
            if isinstance(event, RequestReceived):
                self.seen[event.stream_id] = Seen(list(event.headers))
            elif isinstance(event, DataReceived):
                self.seen[event.stream_id].body += event.data
                if self.acknowledge:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.seen[event.stream_id].ended = True
            elif isinstance(event, StreamReset):
                self.seen[event.stream_id].reset = True
                self._unsent.pop(event.stream_id, None)
            elif isinstance(event, WindowUpdated):
                self._go_on()
        return events

    def answer(
        self,
        stream_id: int,
        body: bytes = b"",
        *,
        fields: list[tuple[bytes, bytes]] | None = None,
        trailers: bool = False,
        padding: int | None = None,
    ) -> None:
        """A whole answer; the body follows as the client's windows allow."""
        head = [(b":status", b"200"), *(fields or [])]
        self.connection.send_headers(stream_id, head, end_stream=not body and not trailers)
        self._unsent[stream_id] = Unsent(body, padding, trailers)
        self._go_on()

    def _go_on(self) -> None:
        for stream_id, unsent in list(self._unsent.items()):
            extra = 0 if unsent.padding is None else unsent.padding + 1
            while unsent.body:
                window = self.connection.local_flow_control_window(stream_id)
                size = min(window - extra, self.connection.max_outbound_frame_size - extra, len(unsent.body))
                if size <= 0:
                    break
                last = size == len(unsent.body) and not unsent.trailers
                self.connection.send_data(stream_id, unsent.body[:size], end_stream=last, pad_length=unsent.padding)
                unsent.body = unsent.body[size:]
            if not unsent.body:
                del self._unsent[stream_id]
                if unsent.trailers:
                    self.connection.send_headers(stream_id, [(b"checksum", b"0")], end_stream=True)

    def take(self) -> bytes:
        return self.connection.data_to_send()
