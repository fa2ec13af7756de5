"""Messages on their way through the client: order, repeats, acknowledgement, window, recovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from streampush.client import (
    Disconnected,
    Fault,
    MemoryPositions,
    NotConnected,
    Outcome,
    PositionLost,
    Recalled,
    Reject,
    SubscriptionLost,
    Window,
)
from streampush.client.inbox import OVERLAP
from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.protocol.terms import LossReason, Start
from tests.client.peer import Stage
from tests.client.test_stream import StageCase

NEWS = m.Subscribed("news", "e1", 0, 0)
MAIL = m.Subscribed("mail", "e2", 0, 0)
AT_ONCE = m.ReconnectPolicy(first_jitter_ms=0)


class Application:
    """Takes messages and lets the test say when, and how, each one is done."""

    def __init__(self) -> None:
        self.given: list[tuple[str, int]] = []
        self.cancelled = 0
        self.working: dict[str, Deferred[Outcome | None]] = {}

    async def __call__(self, message: m.Delivery) -> Outcome | None:
        self.given.append((message.channel, message.offset))
        work: Deferred[Outcome | None] = Deferred()
        self.working[message.channel] = work
        try:
            return await work
        except CancelledError:
            self.cancelled += 1
            raise

    def done(self, channel: str = "news", outcome: Outcome | None = None) -> None:
        self.working.pop(channel).callback(outcome)

    def fails(self, error: Exception, channel: str = "news") -> None:
        self.working.pop(channel).errback(error)


class InboxCase(StageCase):
    def begin(self, *subscribed: m.Subscribed, **options: Any) -> Stage:
        self.application = Application()
        options.setdefault("on_message", self.application)
        self.it = self.stage(**options)
        self.it.greet_with(*(subscribed or (NEWS,)), reconnect=AT_ONCE)
        self.it.start()
        return self.it

    def come_back(self, *subscribed: m.Subscribed) -> None:
        """The connection is lost and made anew; the server greets so."""
        self.it.greet_with(*subscribed, reconnect=AT_ONCE)
        self.it.peer.cut()
        self.it.advance(0.1)

    def deliver(self, *offsets: int, channel: str = "news", size: int = 1, name: str = "") -> None:
        self.it.peer.deliver(channel, *offsets, size=size, name=name)
        self.it.network.pump()

    def say(self, message: m.Message) -> None:
        self.it.peer.say(message)
        self.it.network.pump()

    @property
    def acks(self) -> list[m.Ack]:
        return self.it.peer.messages(m.Ack)

    @property
    def resume(self) -> tuple[m.Resume, ...]:
        [hello] = self.it.peer.messages(m.Hello)
        resume: tuple[m.Resume, ...] = hello.resume
        return resume


class OrderTests(InboxCase):
    def test_one_message_of_a_channel_at_a_time_in_order(self) -> None:
        self.begin()
        self.deliver(1, 2, 3)
        self.assertEqual(self.application.given, [("news", 1)])
        self.application.done()
        self.assertEqual(self.application.given, [("news", 1), ("news", 2)])

    def test_channels_do_not_wait_for_each_other(self) -> None:
        self.begin(NEWS, MAIL)
        self.deliver(1)
        self.deliver(1, channel="mail")
        self.assertEqual(self.application.given, [("news", 1), ("mail", 1)])

    def test_acknowledged_when_the_application_has_finished_not_before(self) -> None:
        self.begin()
        self.deliver(1)
        self.assertEqual(self.acks, [])
        self.application.done()
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)])

    def test_what_is_processed_at_once_is_acknowledged_once(self) -> None:
        stage = self.stage()
        stage.greet_with(NEWS)
        stage.start().deliver("news", *range(1, 51))
        stage.network.pump()
        self.assertEqual(stage.peer.messages(m.Ack), [m.Ack("news", 50, Outcome.PROCESSED)])
        self.assertEqual(len(stage.given), 50)

    def test_the_outcome_that_the_application_returns_is_sent(self) -> None:
        self.begin()
        self.deliver(1)
        self.application.done(outcome=Outcome.DELIVERED)
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.DELIVERED)])

    def test_a_rejected_message_is_not_given_again(self) -> None:
        self.begin()
        self.deliver(1, 2)
        self.application.fails(Reject())
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.REJECTED)])
        self.assertEqual(self.application.given[-1], ("news", 2))

    def test_a_message_of_a_channel_that_is_not_followed_is_ignored(self) -> None:
        self.begin()
        self.deliver(1, channel="other")
        self.assertEqual(self.application.given, [])
        self.assertEqual(self.it.heard(Disconnected), [])


class RetryTests(InboxCase):
    def later(self, *offsets: int) -> None:
        """These arrive, and the application wants each again."""
        self.deliver(*offsets)
        for _ in offsets:
            self.application.done(outcome=Outcome.RETRY_LATER)

    def take(self, *offsets: int) -> None:
        """These arrive, and the application takes them."""
        self.deliver(*offsets)
        for _ in offsets:
            self.application.done()

    def test_an_exception_is_answered_and_the_channel_goes_on(self) -> None:
        self.begin()
        self.deliver(1, 2)
        self.application.fails(ValueError("the payload said so"))
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.RETRY_LATER)])
        self.assertEqual(self.application.given, [("news", 1), ("news", 2)])

    def test_what_was_wanted_later_is_given_when_it_is_delivered_again(self) -> None:
        self.begin()
        self.later(1)
        self.take(2)
        self.take(1)
        self.assertEqual([offset for _, offset in self.application.given], [1, 2, 1])
        self.assertEqual(
            [(ack.offset, ack.outcome.name) for ack in self.acks], [(1, "RETRY_LATER"), (2, "PROCESSED"), (1, "PROCESSED")]
        )

    def test_it_may_be_wanted_later_again(self) -> None:
        self.begin()
        self.later(1)
        self.later(1)
        self.take(1)
        self.assertEqual([ack.outcome.name for ack in self.acks], ["RETRY_LATER", "RETRY_LATER", "PROCESSED"])

    def test_it_is_not_given_twice_while_the_application_is_at_it(self) -> None:
        self.begin()
        self.later(1)
        self.deliver(1)
        self.deliver(1)
        self.assertEqual(len(self.application.given), 2)
        self.application.done()
        self.assertEqual(self.application.working, {})

    def test_an_answer_to_it_is_never_merged_into_that_of_a_later_one(self) -> None:
        self.begin(on_message=self._later_then_done)
        self.deliver(1)
        self.it.peer.deliver("news", 1, 2)  # in one read
        self.it.network.pump()
        self.assertEqual(
            [(ack.offset, ack.outcome.name) for ack in self.acks], [(1, "RETRY_LATER"), (1, "PROCESSED"), (2, "PROCESSED")]
        )

    async def _later_then_done(self, message: m.Delivery) -> Outcome:
        self.application.given.append((message.channel, message.offset))
        return Outcome.RETRY_LATER if len(self.application.given) == 1 else Outcome.PROCESSED

    def test_the_position_stays_in_front_of_it(self) -> None:
        store = MemoryPositions()
        self.begin(positions=store)
        self.take(1)
        self.later(2)
        self.take(3)
        self.assertEqual(store.load(), {"news": m.Position("e1", 1, "news-1")})
        self.take(2)
        self.assertEqual(store.load(), {"news": m.Position("e1", 3, "news-3")})

    def test_the_position_in_front_of_it_is_proven_at_a_reconnect(self) -> None:
        self.begin()
        self.take(1)
        self.later(2)
        self.take(3)
        self.come_back(m.Subscribed("news", "e1", 1, 3))
        self.assertEqual(self.resume, (m.Resume("news", m.Position("e1", 1, "news-1")),))

    def test_after_a_reconnect_what_was_taken_behind_it_is_not_given_again(self) -> None:
        self.begin()
        self.later(1)
        self.take(2, 3)
        self.come_back(m.Subscribed("news", "e1", 0, 3))
        self.deliver(1, 2, 3)
        self.assertEqual(self.application.given[3:], [("news", 1)])

    def test_after_a_reconnect_nothing_is_acknowledged_beyond_it(self) -> None:
        self.begin()
        self.later(1)
        self.take(2, 3)
        self.come_back(m.Subscribed("news", "e1", 0, 3))
        self.deliver(1, 2, 3)
        self.assertEqual(self.acks, [])
        self.application.done()
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED), m.Ack("news", 3, Outcome.PROCESSED)])

    def test_wanted_later_again_after_a_reconnect_it_does_not_stop_the_others(self) -> None:
        self.begin()
        self.later(1)
        self.take(2, 3)
        self.come_back(m.Subscribed("news", "e1", 0, 3))
        self.later(1)
        self.deliver(2, 3)
        self.assertEqual([(ack.offset, ack.outcome.name) for ack in self.acks], [(1, "RETRY_LATER"), (3, "PROCESSED")])

    def test_what_the_server_was_not_told_is_not_passed_over(self) -> None:
        self.begin()
        self.later(1)
        self.deliver(2)
        self.come_back(m.Subscribed("news", "e1", 0, 2))
        self.deliver(1, 2)
        self.application.done(outcome=Outcome.RETRY_LATER)  # 2, and 1 is not answered yet
        self.application.done()
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)])
        self.take(2)
        self.assertEqual(self.acks[-1], m.Ack("news", 2, Outcome.PROCESSED))

    def test_what_is_in_work_over_a_reconnect_is_not_given_twice(self) -> None:
        self.begin()
        self.later(1)
        self.deliver(1)
        self.come_back(m.Subscribed("news", "e1", 0, 1))
        self.deliver(1)
        self.application.done()
        self.assertEqual(self.application.given, [("news", 1), ("news", 1)])
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)])

    def test_a_dead_letter_is_not_waited_for(self) -> None:
        self.begin()
        self.later(1)
        self.take(2)
        self.come_back(m.Subscribed("news", "e1", 2, 2, True, last_message_id="news-2"))
        self.take(3)
        self.come_back()
        self.assertEqual(self.resume, (m.Resume("news", m.Position("e1", 3, "news-3")),))

    def test_what_left_the_log_meanwhile_is_not_waited_for(self) -> None:
        self.begin()
        self.later(1)
        self.take(2)
        self.come_back(m.Subscribed("news", "e1", 0, 3))
        self.deliver(2, 3)
        self.application.done()
        self.assertEqual(self.acks[-1], m.Ack("news", 3, Outcome.PROCESSED))
        self.come_back()
        self.assertEqual(self.resume, (m.Resume("news", m.Position("e1", 3, "news-3")),))

    def test_what_was_recalled_meanwhile_is_not_waited_for(self) -> None:
        store = MemoryPositions()
        self.begin(positions=store)
        self.later(1)
        self.say(m.Delivery("news", 2, "notice", b"", recalls="news-1"))
        self.assertEqual(store.load(), {"news": m.Position("e1", 2, "notice")})

    def test_a_new_log_forgets_what_was_wanted_later(self) -> None:
        self.begin()
        self.later(1)
        self.come_back(m.Subscribed("news", "e7", 0, 1, False, LossReason.EPOCH_CHANGED))
        self.take(1)
        self.come_back()
        self.assertEqual(self.resume, (m.Resume("news", m.Position("e7", 1, "news-1")),))

    def test_redelivery_takes_no_room(self) -> None:
        self.begin(window=Window(1, 1000))
        self.later(1)
        self.deliver(2)
        self.deliver(1)
        self.assertEqual(self.it.heard(Disconnected), [])

    def test_the_exceptions_text_is_told_to_nobody(self) -> None:
        self.begin()
        self.deliver(1)
        self.application.fails(ValueError("the payload said so"))
        self.assertEqual(self.it.heard(Fault), [Fault(0, "on_message raised ValueError")])

    def test_after_unsubscribing_it_is_given_no_more(self) -> None:
        self.begin()
        self.later(1)
        self.it.run(self.it.client.unsubscribe("news"))
        self.deliver(1)
        self.assertEqual(self.application.given, [("news", 1)])

    def test_stop_cancels_the_work(self) -> None:
        self.begin()
        self.deliver(1, 2)
        self.it.run(self.it.client.stop())
        self.assertEqual(self.application.cancelled, 1)
        self.assertEqual(self.application.given, [("news", 1)])


class RepeatTests(InboxCase):
    def test_a_repeat_is_acknowledged_again_and_not_given(self) -> None:
        self.begin()
        self.deliver(1)
        self.application.done()
        self.deliver(1)
        self.assertEqual(self.application.given, [("news", 1)])
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)] * 2)

    def test_what_nobody_worked_on_is_given_when_the_server_sends_it_again(self) -> None:
        self.begin()
        self.deliver(1, 2, 3)
        self.application.done()
        self.come_back(m.Subscribed("news", "e1", 1, 3, True))
        self.deliver(2, 3)
        self.application.done()
        self.application.done()
        self.assertEqual(self.application.given, [("news", 1), ("news", 2), ("news", 3)])

    def test_what_was_finished_meanwhile_is_acknowledged_when_its_repeat_comes(self) -> None:
        self.begin()
        self.deliver(1)
        self.come_back(m.Subscribed("news", "e1", 0, 1))
        self.application.done()
        self.assertEqual(self.acks, [])  # the server has not sent it on this connection yet
        self.deliver(1)
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)])
        self.assertEqual(self.application.given, [("news", 1)])

    def test_a_repeat_of_what_is_being_worked_on_is_not_acknowledged(self) -> None:
        self.begin()
        self.deliver(1, 2)
        self.application.done()
        self.deliver(2)
        self.assertEqual(self.application.given, [("news", 1), ("news", 2)])
        self.assertEqual(self.acks[1:], [m.Ack("news", 1, Outcome.PROCESSED)])

    def test_a_repeat_of_what_was_rejected_is_not_called_processed(self) -> None:
        self.begin()
        self.deliver(1)
        self.application.done(outcome=Outcome.REJECTED)
        self.deliver(1)
        self.assertEqual(self.acks[1:], [m.Ack("news", 1, Outcome.DELIVERED)])

    def test_what_was_delivered_can_be_processed_later(self) -> None:
        self.begin()
        self.deliver(1, 2)
        self.application.done(outcome=Outcome.DELIVERED)
        self.application.done(outcome=Outcome.DELIVERED)
        self.it.client.processed(m.Delivery("news", 1, "news-1", b""))
        self.assertEqual(self.acks[2:], [m.Ack("news", 1, Outcome.PROCESSED), m.Ack("news", 2, Outcome.DELIVERED)])

    def test_processed_while_away_is_told_on_the_next_connection(self) -> None:
        self.begin()
        self.deliver(1)
        self.application.done(outcome=Outcome.DELIVERED)
        self.it.peer.cut()
        self.it.network.pump()
        self.it.client.processed(m.Delivery("news", 1, "news-1", b""))
        self.it.greet_with(m.Subscribed("news", "e1", 1, 1, True), reconnect=AT_ONCE)
        self.it.advance(0.1)
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)])


class PutBackTests(InboxCase):
    """The server's store is restored from a backup, while the application works on a message that the backup does not have."""

    def put_back(self) -> None:
        self.begin()
        self.deliver(1)
        self.come_back(m.Subscribed("news", "e1", 0, 1, True))
        self.say(m.Delivery("news", 1, "another", b"x"))

    def test_what_was_left_out_before_comes_behind_what_is_in_work(self) -> None:
        """It had expired, and the clock was set back: nobody can tell that from a log that has another message there."""
        self.begin()
        self.deliver(1, 3)
        self.application.done()
        self.come_back(m.Subscribed("news", "e1", 1, 3, True, last_message_id="news-1"))
        self.deliver(2, 3)
        while self.application.working:
            self.application.done()
        self.assertEqual(self.application.given, [("news", 1), ("news", 3), ("news", 2)])
        self.assertEqual(self.acks[-1], m.Ack("news", 3, Outcome.PROCESSED))

    def test_another_message_at_the_offset_that_is_in_work_is_no_repeat(self) -> None:
        self.put_back()
        self.application.done()
        self.assertEqual(self.application.given, [("news", 1), ("news", 1)])

    def test_finished_while_the_connection_is_made_it_is_no_repeat_either(self) -> None:
        self.begin()
        self.deliver(1)
        self.come_back(m.Subscribed("news", "e1", 0, 1, True))
        self.application.done()
        self.say(m.Delivery("news", 1, "another", b"x"))
        self.application.done()
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)])
        self.come_back()
        self.assertEqual(self.resume, (m.Resume("news", m.Position("e1", 1, "another")),))

    def test_the_message_that_is_gone_is_neither_acknowledged_nor_a_position(self) -> None:
        self.put_back()
        self.application.done()
        self.assertEqual(self.acks, [])
        self.application.done()
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)])
        self.come_back()
        self.assertEqual(self.resume, (m.Resume("news", m.Position("e1", 1, "another")),))

    def test_the_other_message_is_given_once_although_it_is_repeated_meanwhile(self) -> None:
        self.put_back()
        self.say(m.Delivery("news", 1, "another", b"x"))
        while self.application.working:
            self.application.done()
        self.assertEqual(self.application.given, [("news", 1), ("news", 1)])

    def test_an_offset_of_the_new_log_is_no_other_message_for_what_is_in_work_of_the_old_one(self) -> None:
        self.begin()
        self.deliver(1)
        self.come_back(m.Subscribed("news", "e2", 0, 1, False, LossReason.EPOCH_CHANGED))
        for _ in range(2):
            self.say(m.Delivery("news", 1, "another", b"x"))
        while self.application.working:
            self.application.done()
        self.assertEqual(self.application.given, [("news", 1), ("news", 1)])


class RecallTests(InboxCase):
    NOTICE = m.Delivery("news", 2, "notice", b"", recalls="news-1")

    def test_a_recall_notice_is_an_event_and_no_message(self) -> None:
        self.begin()
        self.deliver(1)
        self.application.done()
        self.say(self.NOTICE)
        self.assertEqual(self.application.given, [("news", 1)])
        self.assertEqual(self.it.heard(Recalled), [Recalled("news", "news-1", 2)])

    def test_it_comes_behind_the_message_that_it_recalls(self) -> None:
        self.begin()
        self.deliver(1)
        self.say(self.NOTICE)
        self.assertEqual(self.it.heard(Recalled), [])
        self.application.done()
        self.assertEqual(len(self.it.heard(Recalled)), 1)

    def test_it_is_acknowledged_and_moves_the_position(self) -> None:
        self.begin()
        self.say(self.NOTICE)
        self.assertEqual(self.acks, [m.Ack("news", 2, Outcome.PROCESSED)])
        self.come_back()
        self.assertEqual(self.resume, (m.Resume("news", m.Position("e1", 2, "notice")),))

    def test_a_repeat_of_it_is_no_second_event(self) -> None:
        self.begin()
        self.say(self.NOTICE)
        self.say(self.NOTICE)
        self.assertEqual(len(self.it.heard(Recalled)), 1)


class DurableTests(InboxCase):
    KEPT = m.Subscribed("kept", "e5", 3, 3, True, durable=True)

    def test_subscribe_asks_for_it(self) -> None:
        self.begin()
        self.it.run(self.it.client.subscribe("kept", durable=True))
        self.assertEqual(self.it.peer.messages(m.Subscribe), [m.Subscribe("kept", durable=True)])

    def test_a_channel_of_the_greeting_that_nobody_named_is_followed(self) -> None:
        self.begin(self.KEPT)
        self.deliver(4, channel="kept")
        self.assertEqual(self.application.given, [("kept", 4)])

    def test_a_channel_that_a_backend_subscribed_is_followed_from_there(self) -> None:
        self.begin()
        self.say(self.KEPT)
        self.deliver(4, channel="kept")
        self.application.done("kept")
        self.assertEqual(self.application.given, [("kept", 4)])
        self.come_back()
        self.assertIn(m.Resume("kept", m.Position("e5", 4, "kept-4")), self.resume)

    def test_a_channel_that_a_backend_ended_is_followed_no_longer(self) -> None:
        self.begin(self.KEPT)
        self.say(m.Subscribed("kept", code=Code.NOT_SUBSCRIBED, detail="ended"))
        self.deliver(4, channel="kept")
        self.assertEqual(self.it.heard(SubscriptionLost), [SubscriptionLost("kept", Code.NOT_SUBSCRIBED, "ended")])
        self.assertEqual(self.application.given, [])

    def test_what_had_arrived_of_a_channel_that_was_ended_is_given_only_once_when_it_is_followed_anew(self) -> None:
        self.begin(self.KEPT)
        self.deliver(4, 5, channel="kept")
        at_four = self.application.working.pop("kept")
        self.say(m.Subscribed("kept", code=Code.NOT_SUBSCRIBED, detail="ended"))
        self.say(self.KEPT)
        self.deliver(4, 5, channel="kept")
        at_four.callback(None)
        self.assertEqual(self.application.given, [("kept", 4), ("kept", 4)])
        self.application.done("kept")
        self.assertEqual(self.application.given, [("kept", 4), ("kept", 4), ("kept", 5)])

    def test_a_channel_that_was_ended_gives_its_room_back(self) -> None:
        self.begin(self.KEPT, window=Window(2, 1000))
        for _ in range(OVERLAP + 1):
            self.deliver(4, 5, channel="kept")
            self.say(m.Subscribed("kept", code=Code.NOT_SUBSCRIBED, detail="ended"))
            self.say(self.KEPT)
        self.assertEqual(self.it.heard(Disconnected), [])

    def test_unsubscribing_needs_the_server(self) -> None:
        self.begin(self.KEPT)
        self.it.peer.cut()
        self.it.network.pump()
        [error] = self.it.run(self.it.client.unsubscribe("kept"))
        self.assertIsInstance(error, NotConnected)
        self.come_back(self.KEPT)
        self.assertIn(m.Resume("kept", m.Position("e5", 3, "")), self.resume)


class WindowTests(InboxCase):
    def test_as_many_as_announced_are_taken(self) -> None:
        self.begin(window=Window(2, 1000))
        self.deliver(1, 2)
        self.assertEqual(self.it.heard(Disconnected), [])

    def test_more_is_taken_where_the_server_gave_up_what_the_application_is_still_at(self) -> None:
        self.begin(window=Window(1, 100))
        for offset in range(1, OVERLAP + 1):
            self.deliver(offset, size=100)
        self.assertEqual(self.it.heard(Disconnected), [])
        for _ in range(OVERLAP):
            self.application.done()
        self.assertEqual([offset for _, offset in self.application.given], [1, 2, 3, 4])

    def test_a_server_that_ignores_the_number_is_cut(self) -> None:
        self.begin(window=Window(2, 1000))
        self.deliver(*range(1, 2 * OVERLAP + 2))
        self.assertEqual(self.it.heard(Disconnected)[0].code, Code.UNEXPECTED_MESSAGE)

    def test_a_server_that_ignores_the_bytes_is_cut(self) -> None:
        self.begin(window=Window(9, 100))
        self.deliver(*range(1, OVERLAP + 1), size=100)
        self.deliver(OVERLAP + 1, size=1)
        self.assertEqual(self.it.heard(Disconnected)[0].code, Code.UNEXPECTED_MESSAGE)

    def test_one_message_may_be_larger_than_the_window(self) -> None:
        self.begin(window=Window(9, 100))
        self.deliver(1, size=500)
        self.assertEqual(self.it.heard(Disconnected), [])

    def test_an_acknowledgement_makes_room(self) -> None:
        self.begin(window=Window(1, 1000))
        for offset in range(1, 5):
            self.deliver(offset)
            self.application.done()
        self.assertEqual(len(self.application.given), 4)

    def test_retry_later_makes_room_too(self) -> None:
        self.begin(NEWS, MAIL, window=Window(1, 1000))
        self.deliver(1)
        self.application.done(outcome=Outcome.RETRY_LATER)
        self.deliver(1, channel="mail")
        self.assertEqual(self.it.heard(Disconnected), [])

    def test_room_is_whole_again_after_a_reconnect(self) -> None:
        self.begin(window=Window(2, 1000))
        self.deliver(1, 2)
        self.come_back(m.Subscribed("news", "e1", 0, 3))
        self.application.done()
        self.deliver(1, 2, 3)
        self.assertEqual(self.it.heard(Disconnected)[1:], [])
        self.assertEqual(self.application.given[-1], ("news", 2))

    def test_a_server_that_sends_nothing_but_marks_is_cut(self) -> None:
        self.begin(window=Window(1, 1000))
        self.deliver(1)
        for _ in range(70):
            self.it.peer.say(m.BacklogEnd("news", 1))
        self.it.network.pump()
        self.assertEqual(self.it.heard(Disconnected)[0].code, Code.UNEXPECTED_MESSAGE)


class LateAnswerTests(InboxCase):
    """The answer to a Subscribe comes when nobody waits for it any more."""

    def ask(self) -> int:
        self.begin()
        self.it.run(self.it.client.subscribe("late", start=Start.EARLIEST, timeout=1))
        self.it.advance(1)
        [request_id] = [request_id for request_id, message in self.it.peer.received if isinstance(message, m.Subscribe)]
        return request_id

    def answer(self, request_id: int) -> None:
        self.it.peer.say(m.Subscribed("late", "e1", 0, 4, durable=True), request_id)
        self.it.network.pump()

    def test_the_channel_is_followed_from_the_place_that_was_asked_for(self) -> None:
        request_id = self.ask()
        self.say(m.Subscribed("late", "e1", 4, 4, durable=True))  # meanwhile a backend has subscribed the device
        self.answer(request_id)
        self.deliver(1, channel="late")
        self.assertEqual(self.application.given, [("late", 1)])

    def test_unsubscribed_meanwhile_it_is_not_followed(self) -> None:
        request_id = self.ask()
        self.it.run(self.it.client.unsubscribe("late"))
        self.answer(request_id)
        self.deliver(1, channel="late")
        self.come_back()
        self.assertEqual((self.application.given, [resume.channel for resume in self.resume]), ([], ["news"]))

    def test_a_refusal_is_told_as_a_fault(self) -> None:
        request_id = self.ask()
        self.it.peer.say(m.Error(Code.FORBIDDEN, detail="no"), request_id)
        self.it.network.pump()
        self.assertEqual([fault.code for fault in self.it.heard(Fault)], [Code.FORBIDDEN])


class RecoveryTests(InboxCase):
    def lost(self) -> list[PositionLost]:
        lost: list[PositionLost] = self.it.heard(PositionLost)
        return lost

    def test_the_processed_position_is_taken_up_again(self) -> None:
        self.begin()
        self.deliver(1, 2)
        self.application.done()
        self.come_back()
        self.assertEqual(self.resume, (m.Resume("news", m.Position("e1", 1, "news-1")),))

    def test_a_channel_that_the_server_follows_by_itself_is_resumed(self) -> None:
        self.begin(m.Subscribed("device:d1", "e9", 4, 4))
        self.come_back()
        self.assertEqual(self.resume, (m.Resume("device:d1", m.Position("e9", 4, "")),))

    def test_a_loss_is_told_and_delivery_goes_on_behind_it(self) -> None:
        self.begin()
        self.deliver(1)
        self.application.done()
        self.come_back(m.Subscribed("news", "e1", 50, 60, False, LossReason.TRIMMED, 49))
        self.assertEqual(self.lost(), [PositionLost("news", LossReason.TRIMMED, 49)])
        self.deliver(51)
        self.assertEqual(self.application.given[-1], ("news", 51))

    def test_a_new_log_begins_anew_with_small_offsets(self) -> None:
        self.begin()
        self.deliver(1, 2)
        self.application.done()
        self.application.done()
        self.come_back(m.Subscribed("news", "e7", 0, 1, False, LossReason.EPOCH_CHANGED))
        self.assertEqual(self.lost(), [PositionLost("news", LossReason.EPOCH_CHANGED, 0)])
        self.deliver(1, name="other")
        self.application.done()
        self.assertEqual(self.application.given, [("news", 1), ("news", 2), ("news", 1)])
        self.come_back()
        self.assertEqual(self.resume, (m.Resume("news", m.Position("e7", 1, "other-1")),))

    def test_a_new_epoch_that_nobody_called_a_loss_is_one(self) -> None:
        self.begin()
        self.deliver(1)
        self.application.done()
        self.come_back(m.Subscribed("news", "e7", 0, 0))
        self.assertEqual(self.lost(), [PositionLost("news", LossReason.EPOCH_CHANGED, 0)])

    def test_a_rewound_log_delivers_the_same_offsets_again(self) -> None:
        self.begin()
        self.deliver(1, 2)
        self.application.done()
        self.application.done()
        self.come_back(m.Subscribed("news", "e1", 0, 1, False, LossReason.REWOUND))
        self.deliver(1, name="other")
        self.assertEqual(self.application.given[-1], ("news", 1))
        self.assertEqual(len(self.application.given), 3)

    def test_work_on_the_old_log_is_not_acknowledged_to_the_new_one(self) -> None:
        self.begin()
        self.deliver(5)
        self.come_back(m.Subscribed("news", "e7", 0, 0, False, LossReason.EPOCH_CHANGED))
        self.application.done()
        self.assertEqual(self.acks, [])
        self.deliver(1)
        self.application.done()
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)])

    def test_a_loss_while_connected_comes_behind_the_messages_before_it(self) -> None:
        self.begin()
        self.deliver(1, 2)
        self.say(m.Subscribed("news", "e1", 9, 9, False, LossReason.TRIMMED, 7))
        self.application.done()
        self.assertEqual(self.lost(), [])
        self.application.done()
        self.assertEqual(self.lost(), [PositionLost("news", LossReason.TRIMMED, 7)])
        self.assertEqual(self.acks[-1], m.Ack("news", 2, Outcome.PROCESSED))

    def test_room_held_by_an_old_log_is_given_back(self) -> None:
        self.begin(window=Window(2, 1000))
        self.deliver(1, 2)
        self.say(m.Subscribed("news", "e7", 0, 2, False, LossReason.EPOCH_CHANGED))
        self.deliver(1, 2, name="other")
        self.assertEqual(self.it.heard(Disconnected), [])
        for _ in range(4):
            self.application.done()
        self.assertEqual([offset for _, offset in self.application.given], [1, 2, 1, 2])
        answers = [m.Ack("news", offset, Outcome.PROCESSED, "e7") for offset in (1, 2)]
        self.assertEqual(self.acks, answers)  # they say of which log they are

    def test_a_new_connection_begins_without_the_epoch(self) -> None:
        self.begin()
        self.say(m.Subscribed("news", "e7", 0, 2, False, LossReason.EPOCH_CHANGED))
        self.come_back(m.Subscribed("news", "e7", 0, 2, True))
        self.deliver(1)
        self.application.done()
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)])

    def test_a_server_that_proves_nothing_is_held_against_what_we_know(self) -> None:
        for answer, reason in (
            (m.Subscribed("news", "e1", 0, 1), LossReason.REWOUND),
            (m.Subscribed("news", "e1", 0, 1, False, LossReason.EXPIRED, 1), LossReason.REWOUND),
            (m.Subscribed("news", "e1", 1, 1, False, LossReason.TRIMMED, 1), LossReason.REWOUND),
            (m.Subscribed("news", "e1", 2, 2, True, last_message_id="other"), LossReason.ID_MISMATCH),
        ):
            self.begin()
            self.deliver(1, 2)
            self.application.done()
            self.application.done()
            self.come_back(answer)
            self.assertEqual(self.lost(), [PositionLost("news", reason, 0)])

    def test_asking_for_an_older_position_gives_the_messages_again(self) -> None:
        self.begin()
        self.deliver(1, 2)
        self.application.done()
        self.application.done()
        self.it.run(self.it.client.subscribe("news", position=m.Position("e1", 1, "news-1")))
        self.it.peer.say(m.Subscribed("news", "e1", 1, 2, True), self.it.peer.received[-1][0])
        self.deliver(2)
        self.assertEqual([offset for _, offset in self.application.given], [1, 2, 2])

    def test_subscribing_again_goes_on_from_the_processed_position(self) -> None:
        self.begin()
        self.deliver(1)
        self.application.done()
        self.it.run(self.it.client.subscribe("news"))
        self.assertEqual(self.it.peer.messages(m.Subscribe), [m.Subscribe("news", m.Position("e1", 1, "news-1"))])


class PositionStoreTests(InboxCase):
    def test_stored_positions_are_taken_up_by_the_first_hello(self) -> None:
        position = m.Position("e1", 3, "news-3")
        self.begin(m.Subscribed("news", "e1", 3, 4, True), positions=MemoryPositions({"news": position}))
        self.assertEqual(self.resume, (m.Resume("news", position),))
        self.deliver(3, 4)
        self.assertEqual(self.application.given, [("news", 4)])

    def test_a_position_is_saved_when_the_message_is_processed(self) -> None:
        store = MemoryPositions()
        self.begin(positions=store)
        self.deliver(1)
        self.assertEqual(store.load(), {"news": m.Position("e1", 0, "")})
        self.application.done()
        self.assertEqual(store.load(), {"news": m.Position("e1", 1, "news-1")})

    def test_unsubscribing_forgets_the_position(self) -> None:
        store = MemoryPositions()
        self.begin(positions=store)
        self.it.run(self.it.client.unsubscribe("news"))
        self.assertEqual(store.load(), {})

    def test_a_store_that_fails_is_reported_and_messages_go_on(self) -> None:
        class Broken(MemoryPositions):
            def save(self, channel: str, position: m.Position) -> None:
                raise OSError("disk full")

            def forget(self, channel: str) -> None:
                raise OSError("disk full")

            def load(self) -> Mapping[str, m.Position]:
                return {}

        self.begin(positions=Broken())
        self.deliver(1)
        self.application.done()
        self.it.run(self.it.client.unsubscribe("news"))
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)])
        self.assertEqual(set(self.it.heard(Fault)), {Fault(0, "the position store raised OSError")})
