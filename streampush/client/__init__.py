"""The reference client of streampush, on Twisted.

    from twisted.internet import task
    from twisted.internet.defer import Deferred

    from streampush.client import ClientTls, Message, StreamClient

    async def show(message: Message) -> None:
        print(message.channel, message.offset, len(message.payload), "bytes")

    async def main(reactor):
        tls = ClientTls.from_files("ca.crt", "device.crt", "device.key")
        client = StreamClient(reactor, [("push.example.org", 7443)], tls, on_message=show, app="example", on_event=print)
        client.start()
        await client.connected()
        await client.subscribe("news")
        await Deferred()  # messages arrive, over as many connections as it takes

    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor)))

Messages of one channel come in order and one at a time, at least once, and are acknowledged when `show` has returned. One that
`show` could not take comes again later, behind others of its channel.
"""

from streampush.client.appointments import Appointment, AppointmentStore, FileAppointments, MemoryAppointments
from streampush.client.connection import StreamConnection
from streampush.client.errors import (
    ClientError,
    ClientStopped,
    ConnectionLost,
    CredentialsError,
    InvalidRequest,
    NotConnected,
    Reject,
    RequestRefused,
    RequestTimeout,
    TooManyRequests,
    UnexpectedReply,
)
from streampush.client.events import (
    Appointed,
    BacklogEnded,
    ClientEvent,
    Connected,
    Degraded,
    Disconnected,
    Fault,
    PositionLost,
    Recalled,
    ReceiptArrived,
    Stopped,
    StopReason,
    SubscriptionLost,
)
from streampush.client.inbox import OnMessage, Window
from streampush.client.positions import MemoryPositions, PositionStore
from streampush.client.publishing import PublishOptions
from streampush.client.stream import StreamClient
from streampush.client.tls import Address, ClientTls, Security
from streampush.protocol.messages import Alert, Position, PublishOk, Receipt, Subscribed, Welcome
from streampush.protocol.messages import Delivery as Message
from streampush.protocol.terms import AppState, Durability, Milestone, Outcome, Priority, Start

__all__ = [
    "Address",
    "Alert",
    "AppState",
    "Appointed",
    "Appointment",
    "AppointmentStore",
    "BacklogEnded",
    "ClientError",
    "ClientEvent",
    "ClientStopped",
    "ClientTls",
    "Connected",
    "ConnectionLost",
    "CredentialsError",
    "Degraded",
    "Disconnected",
    "Durability",
    "Fault",
    "FileAppointments",
    "InvalidRequest",
    "MemoryAppointments",
    "MemoryPositions",
    "Message",
    "Milestone",
    "NotConnected",
    "OnMessage",
    "Outcome",
    "Position",
    "PositionLost",
    "PositionStore",
    "Priority",
    "PublishOk",
    "PublishOptions",
    "Recalled",
    "Receipt",
    "ReceiptArrived",
    "Reject",
    "RequestRefused",
    "RequestTimeout",
    "Security",
    "Start",
    "Stopped",
    "StopReason",
    "StreamClient",
    "StreamConnection",
    "Subscribed",
    "SubscriptionLost",
    "TooManyRequests",
    "UnexpectedReply",
    "Welcome",
    "Window",
]
