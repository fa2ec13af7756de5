"""One connection to the Unix socket of a process that serves."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from streampush.handover.incumbent import Asker
from streampush.handover.place import Peer
from streampush.handover.wire import Message, encode


def test_what_comes_behind_something_wrong_does_not_count() -> None:
    said: list[str] = []

    def hear(asker: Asker, message: Message) -> None:
        said.append(message.kind)
        if message.kind == "started":
            asker.fail("this was not expected now")

    asker = Asker(Clock(), Peer(1, 0), hear, lambda asker, reason: None)
    transport = StringTransport()
    asker.makeConnection(transport)
    asker.dataReceived(encode("ask") + encode("started") + encode("held"))
    asker.dataReceived(encode("taken"))
    assert said == ["ask", "started"]
    assert transport.disconnecting
    assert b"not expected" in transport.value()
