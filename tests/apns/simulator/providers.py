"""The provider's side in the simulator's tests: its tokens, and stock h2 as its HTTP/2."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from streampush.apns.http2 import frames
from streampush.apns.simulator import AppleConnection, MintedKey, mint_key

TOKEN = "a1" * 32
TOPIC = "com.example.app"
PAYLOAD = b'{"aps":{"alert":"hello"}}'
MINTED = mint_key()


def _part(value: object) -> bytes:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=")


def make_jwt(
    minted: MintedKey = MINTED,
    issued_at: object = 0,
    header: Mapping[str, object] | None = None,
    claims: Mapping[str, object] | None = None,
) -> bytes:
    """A provider token, signed; with other headers and claims if they are given."""
    private = load_pem_private_key(minted.p8, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    header = {"alg": "ES256", "kid": minted.key.key_id} if header is None else header
    claims = {"iss": minted.key.team_id, "iat": issued_at} if claims is None else claims
    signed = _part(header) + b"." + _part(claims)
    r, s = decode_dss_signature(private.sign(signed, ec.ECDSA(SHA256())))
    return signed + b"." + _part(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def request_fields(token: str = TOKEN, jwt: bytes = b"", **others: str | None) -> list[tuple[bytes, bytes]]:
    """The fields of a push. A keyword gives or (None) removes one; `_` is written for `-`, `pseudo_` for the colon."""
    fields: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "https",
        ":authority": "api.push.apple.com",
        ":path": f"/3/device/{token}",
        "authorization": f"bearer {jwt.decode()}" if jwt else None,
        "apns-topic": TOPIC,
        "apns-push-type": "alert",
    }
    for name, value in others.items():
        fields[name.replace("pseudo_", ":").replace("_", "-")] = value
    return [(name.encode(), value.encode()) for name, value in fields.items() if value is not None]


@dataclass
class Answer:
    """What came for one request."""

    status: int = 0
    fields: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def reason(self) -> str:
        return str(json.loads(self.body)["reason"]) if self.body else ""


class H2Side:
    """Stock h2 as a client, without IO. GOAWAY is kept from h2, which would give up the connection: see `goaways`."""

    def __init__(self, jwt: bytes) -> None:
        self.jwt = jwt
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int, bytes]] = []
        self.limits: list[int] = []
        self._reader = frames.FrameReader()
        self._bodies: dict[int, bytes] = {}
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()

    def push(self, token: str = TOKEN, payload: bytes = PAYLOAD, **others: str | None) -> int:
        """Begins a push."""
        stream_id = int(self.h2.get_next_available_stream_id())
        self.h2.send_headers(stream_id, request_fields(token, self.jwt, **others))
        self.answers[stream_id] = Answer()
        self._bodies[stream_id] = payload
        self._send_bodies()
        return stream_id

    def outbound(self) -> bytes:
        """Takes what is to be written."""
        return bytes(self.h2.data_to_send())

    def receive(self, data: bytes) -> None:
        """Bytes of the server."""
        for event in self.h2.receive_data(self._without_goaways(data)):
            self._event(event)
        self._send_bodies()

    def _without_goaways(self, data: bytes) -> bytes:
        kept = []
        for kind, flags, stream_id, payload in self._reader.feed(data):
            if kind == frames.FrameType.GOAWAY:
                self.goaways.append(frames.parse_goaway(flags, stream_id, payload))
            else:
                kept.append(frames.frame(kind, flags, stream_id, payload))
        return b"".join(kept)

    def _send_bodies(self) -> None:
        for stream_id, rest in list(self._bodies.items()):
            answer = self.answers[stream_id]
            if answer.ended or answer.reset is not None:
                del self._bodies[stream_id]
                continue
            size = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size, len(rest))
            if size or not rest:
                self.h2.send_data(stream_id, rest[:size], end_stream=size == len(rest))
                self._bodies[stream_id] = rest[size:]
                if size == len(rest):
                    del self._bodies[stream_id]

    def _event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self._head(self.answers[_id(event)], event.headers or [])
        elif isinstance(event, h2.events.DataReceived):
            self.answers[_id(event)].body += event.data or b""
            self.h2.acknowledge_received_data(event.flow_controlled_length or 0, _id(event))
        elif isinstance(event, h2.events.StreamEnded):
            self.answers[_id(event)].ended = True
        elif isinstance(event, h2.events.StreamReset):
            self.answers[_id(event)].reset = int(event.error_code or 0)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            for setting in event.changed_settings.values():
                if int(setting.setting) == 3:
                    self.limits.append(setting.new_value)

    def _head(self, answer: Answer, headers: Any) -> None:
        answer.fields = dict(headers)
        answer.status = int(answer.fields[b":status"])


class H2Provider(H2Side):
    """Stock h2 with a connection of the simulator at the other end, over bytes in chunks of `chunk`.

    Not `patient`: pushes may be made before the server's SETTINGS are known.
    """

    def __init__(
        self, connection: AppleConnection, now: float = 0.0, *, chunk: int = 1 << 20, jwt: bytes = b"", patient: bool = True
    ) -> None:
        super().__init__(jwt or make_jwt(issued_at=now))
        self.connection = connection
        self.now = now
        self._chunk = chunk
        if patient:
            self.exchange()

    def answer(self, token: str = TOKEN, payload: bytes = PAYLOAD, **others: str | None) -> Answer:
        """Pushes and gives what came at once."""
        stream_id = self.push(token, payload, **others)
        self.exchange()
        return self.answers[stream_id]

    def exchange(self) -> None:
        """Passes bytes both ways until there are none."""
        while True:
            data = self.outbound()
            for at in range(0, len(data), self._chunk):
                self.connection.receive(data[at : at + self._chunk], self.now)
            back = self.connection.outbound()
            if not data and not back:
                return
            self.receive(back)

    def advance(self, seconds: float) -> None:
        """Lets time pass, stopping at every deadline of the connection."""
        end = self.now + seconds
        while self.connection.deadline is not None and self.connection.deadline <= end:
            self.now = max(self.now, self.connection.deadline)
            self.connection.tick(self.now)
            self.exchange()
        self.now = end


def _id(event: Any) -> int:
    return int(event.stream_id)
