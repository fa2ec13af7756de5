"""Messages on their way through the client: order, repeats, acknowledgement, window, recovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from streampush.client import Disconnected, Fault, MemoryPositions, Outcome, PositionLost, Reject, Window
from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.protocol.terms import LossReason
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

    def deliver(self, *offsets: int, channel: str = "news", size: int = 1) -> None:
        self.it.peer.deliver(channel, *offsets, size=size)
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
    def test_an_exception_is_answered_and_the_message_given_again_later(self) -> None:
        self.begin()
        self.deliver(1, 2)
        self.application.fails(ValueError("the payload said so"))
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.RETRY_LATER)])
        self.it.advance(0.9)
        self.assertEqual(self.application.given, [("news", 1)])
        self.it.advance(0.2)
        self.assertEqual(self.application.given, [("news", 1), ("news", 1)])
        self.application.done()
        self.assertEqual(self.application.given[-1], ("news", 2))
        self.assertEqual(self.acks[-1], m.Ack("news", 1, Outcome.PROCESSED))

    def test_the_exceptions_text_is_told_to_nobody(self) -> None:
        self.begin()
        self.deliver(1)
        self.application.fails(ValueError("the payload said so"))
        self.assertEqual(self.it.heard(Fault), [Fault(0, "on_message raised ValueError")])

    def test_the_pauses_grow(self) -> None:
        self.begin()
        self.deliver(1)
        for pause in (1, 2, 4):
            self.application.done(outcome=Outcome.RETRY_LATER)
            self.it.advance(pause - 0.1)
            self.assertEqual(self.application.working, {})
            self.it.advance(0.2)
        self.assertEqual(len(self.application.given), 4)

    def test_a_pause_goes_on_over_a_reconnect_and_the_repeat_is_not_given_twice(self) -> None:
        self.begin()
        self.deliver(1)
        self.application.done(outcome=Outcome.RETRY_LATER)
        self.come_back(NEWS)
        self.deliver(1)
        self.it.advance(1)
        self.assertEqual(self.application.given, [("news", 1), ("news", 1)])
        self.application.done()
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)])

    def test_unsubscribing_ends_the_pause_for_good(self) -> None:
        self.begin()
        self.deliver(1)
        self.application.done(outcome=Outcome.RETRY_LATER)
        self.it.run(self.it.client.unsubscribe("news"))
        self.it.advance(5)
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
        self.come_back(NEWS)
        self.application.done()
        self.assertEqual(self.acks, [])  # the server has not sent it on this connection yet
        self.deliver(1)
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED)])
        self.assertEqual(self.application.given, [("news", 1)])


class WindowTests(InboxCase):
    def test_as_many_as_announced_are_taken(self) -> None:
        self.begin(window=Window(2, 1000))
        self.deliver(1, 2)
        self.assertEqual(self.it.heard(Disconnected), [])

    def test_a_server_that_ignores_the_number_is_cut(self) -> None:
        self.begin(window=Window(2, 1000))
        self.deliver(1, 2, 3)
        self.assertEqual(self.it.heard(Disconnected)[0].code, Code.UNEXPECTED_MESSAGE)

    def test_a_server_that_ignores_the_bytes_is_cut(self) -> None:
        self.begin(window=Window(9, 100))
        self.deliver(1, 2, size=51)
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
        self.come_back(NEWS)
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
        self.deliver(1)
        self.application.done()
        self.assertEqual(self.application.given, [("news", 1), ("news", 2), ("news", 1)])
        self.come_back()
        self.assertEqual(self.resume, (m.Resume("news", m.Position("e7", 1, "news-1")),))

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
        self.deliver(1)
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
        self.deliver(1, 2)
        self.assertEqual(self.it.heard(Disconnected), [])
        for _ in range(4):
            self.application.done()
        self.assertEqual([offset for _, offset in self.application.given], [1, 2, 1, 2])
        self.assertEqual(self.acks, [m.Ack("news", 1, Outcome.PROCESSED), m.Ack("news", 2, Outcome.PROCESSED)])

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
