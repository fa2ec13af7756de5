"""A client on OpenSSL's memory BIOs that keeps its TLS session from one connection to the next."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from streampush.cli.pki import Issued
from streampush.node_service import StreampushService
from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.framing import FrameDecoder, encode_frame
from tests.support import authority


class _Pipe(Protocol):
    """Says hello, takes the answer, closes in order."""

    def __init__(self, tls: SSL.Connection) -> None:
        self.done: Deferred[m.Message | None] = Deferred()
        self._tls = tls
        self._decoder = FrameDecoder()
        self._greeted = False
        self._answer: m.Message | None = None

    def connectionMade(self) -> None:
        self._tls.set_connect_state()
        self._turn()

    def dataReceived(self, data: bytes) -> None:
        self._tls.bio_write(data)
        self._turn()

    def _turn(self) -> None:
        try:
            if not self._greeted:
                self._tls.do_handshake()
                self._greeted = True
                self._tls.send(encode_frame(codec.encode(m.Hello(), 1)))
            while True:
                for frame in self._decoder.feed(self._tls.recv(65536)):
                    assert isinstance(frame, bytes)
                    _, message = codec.decode(frame)
                    if self._answer is None and isinstance(message, m.Welcome | m.GoAway):
                        self._answer = message
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            pass
        assert self.transport is not None
        try:
            while True:
                self.transport.write(self._tls.bio_read(65536))
        except SSL.WantReadError:
            pass
        if self._answer is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        self.done.callback(self._answer)


class ResumingClient:
    """`visit` connects, says hello and leaves; from the second time on with the session of the time before."""

    def __init__(self, node: StreampushService | None, issued: Issued) -> None:
        assert node is not None
        self._node = node
        self._session: Any = None
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.use_certificate(issued.certificate)
        self._context.use_privatekey(issued.key)
        store = self._context.get_cert_store()
        assert store is not None
        store.add_cert(X509.from_cryptography(authority().issued.certificate))
        self._context.set_verify(SSL.VERIFY_PEER)

    async def visit(self) -> m.Message | None:
        """The server's answer to Hello."""
        tls = SSL.Connection(self._context, None)
        tls.set_tlsext_host_name(b"localhost")
        if self._session is not None:
            tls.set_session(self._session)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self._node.port)
        pipe = await connectProtocol(endpoint, _Pipe(tls))
        answer = await pipe.done
        self._session = tls.get_session()
        return answer
