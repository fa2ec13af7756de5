"""One push on its way through a client: the exchange that carries it, over all its tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from streampush.apns.answers import MAX_BODY, read_answer
from streampush.apns.exchange import Exchange, Fault
from streampush.apns.http2 import HeaderList
from streampush.apns.outcome import Outcome
from streampush.apns.pace import Ticket
from streampush.apns.push import ApnsPush
from streampush.apns.retry import Attempt
from streampush.apns.waiting import Waiting


class SendingOwner(Protocol):
    """What a push on its way asks of its client. One of `delivered` and `came_back` is called for each try."""

    def seconds(self) -> float:
        """The time of its clock."""

    def delivered(self, sending: Sending, headers: HeaderList) -> None:
        """Apple took it."""

    def came_back(self, sending: Sending, outcome: Outcome, headers: HeaderList | None) -> None:
        """It ended otherwise; `headers` of the answer if there was one."""

    def retry_after(self, headers: HeaderList) -> float | None:
        """Seconds that an answer asks to wait."""

    def cancel(self, sending: Sending) -> bool:
        """Takes it back if no connection has it. Gives whether."""


class Sending(Exchange):
    """For who sent it: `apns_id`, and `cancel` of the client. The rest belongs to the client.

    `until`: seconds of the client's clock by which it has ended. `ticket`: it is under way, or waits in the pool; without one it
    waits in `place`, or is over. `made`: tries. `charged`: see Attempt. `earlier`: how the tries before ended, put together.
    `begun_at`: when it came, `sent_at`: when it last got a stream. `stamp`: of its request head, `generation`: of the credential.
    """

    __slots__ = (
        "_body",
        "_headers",
        "_owner",
        "apns_id",
        "begun_at",
        "charged",
        "done",
        "earlier",
        "generation",
        "made",
        "place",
        "push",
        "sent_at",
        "size",
        "stamp",
        "ticket",
        "until",
    )

    begun_at: float
    sent_at: float
    stamp: int
    generation: int
    _headers: HeaderList | None
    _body: bytes

    def __init__(
        self, owner: SendingOwner, push: ApnsPush, apns_id: str, until: float, done: Callable[[Outcome], None] | None
    ) -> None:
        # In place of Exchange.__init__: there is one of these for each push. What is set when it sets out, is given to the pool or
        # gets its answer has no value before.
        self.body = push.payload
        self.more = self.watched = self.waiting = self.charged = False
        self.repeatable = False  # the client decides about repeats, not the pool
        self.carrier = None
        self.stream_id = self.tries = self.made = 0
        # In place of the property, which is asked for often while there is a queue; without the block, made when it leaves that.
        self.size = len(push.payload)  # type: ignore[misc]  # a slot can be written
        self.push = push
        self.apns_id = apns_id
        self.until = until
        self.done = done
        self.ticket: Ticket | None = None
        self.place: Waiting[Sending] | None = None
        self.earlier: Outcome | None = None
        self._owner = owner

    @property
    def over(self) -> bool:
        """Whether its outcome was told."""
        return self.done is None

    def attempt(self) -> Attempt:
        """For the policies."""
        push = self.push
        return Attempt(self.made, push.expiration, self.until, bool(push.collapse_id), self.charged)

    def cancelled(self, _result: object) -> None:
        """By its Deferred, which fires in here, or tells its caller itself that the push could not be taken back."""
        self._owner.cancel(self)

    # ------------------------------------------------------------------------------------------------------------- for the pool

    def began(self) -> None:
        self.watched = False
        self.block = b""
        self.sent_at = self._owner.seconds()

    def answered(self, headers: HeaderList, ended: bool) -> None:
        if not ended:
            self._headers = headers
            self._body = b""
        elif headers.status == 200:
            self._owner.delivered(self, headers)
        else:
            self._read(headers, b"")

    def received(self, data: bytes, ended: bool) -> None:
        if len(self._body) <= MAX_BODY:  # what is longer is none of Apple's answers
            self._body += data
        if ended:
            self._whole()

    def trailed(self, headers: HeaderList) -> None:
        self._whole()

    def failed(self, fault: Fault) -> None:
        if self.ticket is None:
            return  # it has ended already, and what was called then failed
        self._headers = None
        self._owner.came_back(self, fault.outcome, None)

    # ----------------------------------------------------------------------------------------------------------------- its work

    def _whole(self) -> None:
        headers, self._headers = self._headers, None
        if headers is None:
            return
        if headers.status == 200:
            self._owner.delivered(self, headers)
        else:
            self._read(headers, self._body)

    def _read(self, headers: HeaderList, body: bytes) -> None:
        outcome = read_answer(headers.status, body, apns_id=self.apns_id, retry_after=self._owner.retry_after(headers))
        self._owner.came_back(self, outcome, headers)
