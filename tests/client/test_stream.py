from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from streampush.client import (
    BacklogEnded,
    ClientStopped,
    Connected,
    ConnectionLost,
    Degraded,
    Disconnected,
    Fault,
    InvalidRequest,
    NotConnected,
    RequestRefused,
    RequestTimeout,
    Stopped,
    StopReason,
    SubscriptionLost,
    TooManyRequests,
    UnexpectedReply,
)
from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.session import SessionSettings
from streampush.protocol.terms import AppState, Start
from tests.client.peer import Peer, Stage

NEWS = m.Subscribed("news", "e1", 0, 0)
QUICK = m.ReconnectPolicy(first_jitter_ms=0, backoff_initial_ms=1000, backoff_max_ms=1000, degraded_after=2)


class StageCase(TestCase):
    """Every test ends with a stopped client that left no delayed call behind."""

    def stage(self, **options: Any) -> Stage:
        stage = Stage(**options)
        self.addCleanup(self._stop, stage)
        return stage

    def _stop(self, stage: Stage) -> None:
        result = stage.run(stage.client.stop())
        stage.advance(6)
        self.assertEqual(result, [None])
        self.assertEqual(stage.clock.getDelayedCalls(), [])


class GreetingTests(StageCase):
    def test_hello_carries_application_window_and_state(self) -> None:
        stage = self.stage(app="demo", app_version="2", state=AppState.BACKGROUND)
        [hello] = stage.start().messages(m.Hello)
        self.assertEqual((hello.app, hello.app_version, hello.state), ("demo", "2", AppState.BACKGROUND))
        self.assertEqual((hello.receive_window_messages, hello.receive_window_bytes), (256, 1024 * 1024))
        self.assertEqual(hello.sdk, "streampush-python")

    def test_connected_waits_for_welcome(self) -> None:
        stage = self.stage()
        waiting = stage.run(stage.client.connected())
        self.assertEqual(waiting, [])
        stage.start()
        self.assertEqual(waiting, [stage.peer.greeting])

    def test_connected_is_immediate_on_an_open_connection(self) -> None:
        stage = self.stage()
        stage.start()
        self.assertEqual(stage.run(stage.client.connected()), [stage.peer.greeting])

    def test_a_cancelled_wait_for_a_connection_leaves_nothing(self) -> None:
        stage = self.stage()
        waiting = Deferred.fromCoroutine(stage.client.connected())
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        stage.start()
        self.assertEqual(len(stage.heard(Connected)), 1)

    def test_a_server_that_does_not_greet_is_left_in_time(self) -> None:
        stage = self.stage()
        stage.network.prepare = lambda peer: setattr(peer, "greeting", None)
        stage.start()
        stage.advance(10.1)
        self.assertEqual(stage.heard(Disconnected)[0].code, Code.HELLO_TIMEOUT)

    def test_a_silent_server_is_given_up_by_heartbeat(self) -> None:
        stage = self.stage()
        stage.greet_with(heartbeat=m.HeartbeatPolicy(1000, 500, 2), reconnect=QUICK)
        stage.start().deaf = True
        stage.advance(4)
        self.assertEqual(stage.heard(Disconnected)[0].code, Code.HEARTBEAT_LOST)

    def test_a_server_certificate_of_another_name_stops_the_client(self) -> None:
        stage = self.stage()
        stage.network.problem = "wrong name"
        stage.client.start()
        stage.advance(1)
        self.assertEqual(stage.heard(Stopped)[0].reason, StopReason.CREDENTIALS)
        self.assertEqual(stage.peer.messages(m.Hello), [])


class RequestTests(StageCase):
    def setUp(self) -> None:
        self.it = self.stage(max_requests=2, request_timeout=5)
        self.peer = self.it.start()

    def answer(self, message: m.Message) -> None:
        self.peer.say(message, self.peer.received[-1][0])
        self.it.network.pump()

    def test_publish_gives_the_servers_answer(self) -> None:
        result = self.it.run(self.it.client.publish("news", b"hi", content_type="text/plain", headers={"a": "b"}, ttl=1.5))
        request = self.peer.received[-1][1]
        self.assertEqual(request, m.Publish("news", b"hi", "text/plain", {"a": "b"}, 1500, idempotency_key=request.idempotency_key))
        ok = m.PublishOk("id1", "news", 1, "e1", m.Durability.MEMORY, 3)
        self.answer(ok)
        self.assertEqual(result, [ok])

    def test_an_error_is_a_refusal_with_its_advice(self) -> None:
        result = self.it.run(self.it.client.publish("news", b"hi"))
        self.answer(m.Error(3001, Advice.SLOW_DOWN, "slower", retry_after_ms=2000))
        [error] = result
        self.assertIsInstance(error, RequestRefused)
        self.assertEqual((error.code, error.advice, error.detail, error.retry_after), (3001, Advice.SLOW_DOWN, "slower", 2.0))

    def test_a_code_of_the_future_is_a_refusal_too(self) -> None:
        result = self.it.run(self.it.client.publish("news", b"hi"))
        self.answer(m.Error(3999, Advice.RETRY, "new"))
        self.assertEqual((result[0].code, result[0].advice), (3999, Advice.RETRY))

    def test_no_reply_in_time_is_a_timeout(self) -> None:
        result = self.it.run(self.it.client.publish("news", b"hi"))
        self.it.advance(5)
        self.assertIsInstance(result[0], RequestTimeout)

    def test_a_late_reply_is_ignored(self) -> None:
        self.it.run(self.it.client.publish("news", b"hi", timeout=1))
        self.it.advance(1)
        self.answer(m.Ok())
        self.assertEqual(self.it.heard(Disconnected), [])

    def test_more_requests_than_allowed_are_refused_here(self) -> None:
        for _ in range(2):
            self.it.run(self.it.client.publish("news", b"hi"))
        self.assertIsInstance(self.it.run(self.it.client.publish("news", b"hi"))[0], TooManyRequests)

    def test_a_frame_that_the_server_would_not_take_is_not_sent(self) -> None:
        self.it.greet_with(limits=m.Limits(max_frame=1000))
        self.it.client.drop()
        self.it.advance(6)
        self.assertIsInstance(self.it.run(self.it.client.publish("news", bytes(1000)))[0], InvalidRequest)
        self.assertEqual(self.it.run(self.it.client.publish("news", bytes(900))), [])

    def test_an_oversize_payload_is_not_sent(self) -> None:
        result = self.it.run(self.it.client.publish("news", bytes(2 * 1024 * 1024)))
        self.assertIsInstance(result[0], InvalidRequest)
        self.assertEqual(self.peer.messages(m.Publish), [])

    def test_a_reply_of_the_wrong_kind_is_no_success(self) -> None:
        result = self.it.run(self.it.client.publish("news", b"hi"))
        self.answer(m.Ok())
        self.assertIsInstance(result[0], UnexpectedReply)

    def test_a_lost_connection_fails_open_requests(self) -> None:
        result = self.it.run(self.it.client.subscribe("news"))
        self.peer.cut()
        self.it.network.pump()
        self.assertIsInstance(result[0], ConnectionLost)

    def test_without_a_connection_requests_fail_at_once(self) -> None:
        self.it.client.drop()
        self.it.network.pump()
        self.assertIsInstance(self.it.run(self.it.client.publish("news", b"hi"))[0], NotConnected)

    def test_register_token_sends_it_and_shows_it_nowhere(self) -> None:
        result = self.it.run(self.it.client.register_token(b"secret", "org.example", sandbox=True))
        [token] = self.peer.messages(m.RegisterToken)
        self.assertEqual((token.token, token.topic, token.sandbox), (b"secret", "org.example", True))
        self.assertNotIn("secret", repr(token))
        self.answer(m.Ok())
        self.assertEqual(result, [None])

    def test_the_state_is_told_now_and_with_the_next_greeting(self) -> None:
        result = self.it.run(self.it.client.set_state(AppState.FOREGROUND))
        self.assertEqual(self.peer.messages(m.State), [m.State(AppState.FOREGROUND)])
        self.answer(m.Ok())
        self.assertEqual(result, [None])
        self.it.client.drop()
        self.it.advance(6)
        [hello] = self.it.peer.messages(m.Hello)
        self.assertEqual(hello.state, AppState.FOREGROUND)

    def test_subscribe_asks_for_the_start_and_gives_the_answer(self) -> None:
        result = self.it.run(self.it.client.subscribe("news", start=Start.EARLIEST))
        self.assertEqual(self.peer.received[-1][1], m.Subscribe("news", None, Start.EARLIEST))
        self.answer(NEWS)
        self.assertEqual(result, [NEWS])

    def test_a_delivery_right_behind_the_subscribe_reply_arrives(self) -> None:
        self.it.run(self.it.client.subscribe("news"))
        self.peer.session.send(NEWS, self.peer.received[-1][0])
        self.peer.deliver("news", 1)
        self.it.network.pump()
        self.assertEqual(self.it.given, [("news", 1)])

    def test_a_refused_subscription_is_not_taken_up_again(self) -> None:
        self.it.run(self.it.client.subscribe("secret"))
        self.answer(m.Error.of(Code.FORBIDDEN))
        self.it.client.drop()
        self.it.advance(6)
        self.assertEqual(self.it.peer.messages(m.Hello)[0].resume, ())

    def test_unsubscribe_forgets_the_channel(self) -> None:
        self.it.run(self.it.client.subscribe("news"))
        self.answer(NEWS)
        result = self.it.run(self.it.client.unsubscribe("news"))
        self.answer(m.Ok())
        self.assertEqual(result, [None])
        self.peer.deliver("news", 1)
        self.it.network.pump()
        self.it.client.drop()
        self.it.advance(6)
        self.assertEqual(self.it.given, [])
        self.assertEqual(self.it.peer.messages(m.Hello)[0].resume, ())

    def test_an_error_without_a_request_is_reported(self) -> None:
        self.peer.say(m.Error.of(Code.TOO_MANY_PINGS))
        self.it.network.pump()
        self.assertEqual(self.it.heard(Fault), [Fault(Code.TOO_MANY_PINGS, "too many pings")])

    def test_damage_on_the_wire_is_reported_and_survived(self) -> None:
        self.peer.raw(b"\x00\x00\x00\x01x\x00\x00\x00\x00")
        self.it.network.pump()
        self.assertEqual(self.it.heard(Fault)[0].code, Code.CHECKSUM_MISMATCH)
        self.assertIsNotNone(self.it.client.welcome)


class ReconnectTests(StageCase):
    def test_three_quick_tries_and_every_address_in_turn(self) -> None:
        stage = self.stage(addresses=2)
        stage.network.reachable = False
        stage.client.start()
        stage.advance(1.5)
        hosts = [host for _, (host, _) in stage.network.attempts]
        self.assertEqual(hosts[:4], ["host0", "host1", "host0", "host1"])
        self.assertEqual([at for at, _ in stage.network.attempts], [0, 0.5, 1.0, 1.5])

    def test_a_lost_connection_comes_back_within_the_announced_jitter(self) -> None:
        stage = self.stage()
        stage.greet_with(reconnect=m.ReconnectPolicy(first_jitter_ms=1000))
        stage.start()
        stage.peer.cut()
        stage.advance(1.1)
        self.assertEqual(len(stage.network.peers), 2)
        self.assertLessEqual(stage.heard(Disconnected)[0].next_try_in, 1.0)

    def test_goaway_is_obeyed_elsewhere_and_at_its_time(self) -> None:
        stage = self.stage(addresses=2)
        stage.start()
        stage.peer.session.drain(0, m.GoAway(1004, Advice.RECONNECT_ELSEWHERE, "drain", 3000, 0, 10_000))
        stage.peer.flush()
        stage.network.pump()
        self.assertEqual(stage.heard(Disconnected), [Disconnected(1004, Advice.RECONNECT_ELSEWHERE, "drain", 3.0)])
        stage.advance(2.8)
        self.assertEqual(len(stage.network.peers), 1)
        stage.advance(0.3)
        self.assertEqual(stage.peer.address[0], "host1")

    def test_requests_that_are_open_are_finished_before_leaving_a_draining_server(self) -> None:
        stage = self.stage()
        stage.start()
        result = stage.run(stage.client.publish("news", b"hi"))
        request_id = stage.peer.received[-1][0]
        stage.peer.session.drain(0, m.GoAway(1004, Advice.RECONNECT, close_after_ms=10_000))
        stage.peer.flush()
        stage.network.pump()
        self.assertFalse(stage.peer.client_closed)
        self.assertIsInstance(stage.run(stage.client.publish("news", b"no"))[0], NotConnected)
        ok = m.PublishOk("id1", "news", 1, "e1", m.Durability.MEMORY)
        stage.peer.say(ok, request_id)
        stage.network.pump()
        self.assertEqual(result, [ok])
        self.assertTrue(stage.peer.client_closed)

    def test_a_refusal_before_the_greeting_stops_if_it_says_so(self) -> None:
        stage = self.stage()

        def refuse(peer: Peer) -> None:
            peer.greeting = None
            peer.session.close(Code.CERTIFICATE_REJECTED)
            peer.flush()
            peer.hang_up()

        stage.network.prepare = refuse
        waiting = stage.run(stage.client.connected())
        stage.client.start()
        stage.advance(100)
        self.assertEqual(len(stage.network.peers), 1)
        self.assertEqual(stage.heard(Stopped)[0].reason, StopReason.RENEW_CERTIFICATE)
        self.assertIsInstance(waiting[0], ClientStopped)

    def test_a_replaced_client_stops(self) -> None:
        stage = self.stage()
        stage.start()
        stage.peer.session.close(Code.REPLACED)
        stage.peer.flush()
        stage.peer.hang_up()
        stage.advance(100)
        self.assertEqual(len(stage.network.peers), 1)
        self.assertEqual(stage.heard(Stopped)[0].reason, StopReason.REPLACED)

    def test_an_error_that_stops_nothing_is_only_reported(self) -> None:
        stage = self.stage()
        stage.start()
        stage.peer.say(m.Error(1999, Advice.UPGRADE, "too old"))
        stage.peer.cut()
        stage.network.pump()
        self.assertEqual(stage.heard(Fault), [Fault(1999, "too old")])
        self.assertEqual(stage.heard(Stopped), [])

    def test_an_error_that_advises_another_connection_is_obeyed_when_all_is_answered(self) -> None:
        stage = self.stage(addresses=2)
        peer = stage.start()
        results = [stage.run(stage.client.publish("news", b"hi")) for _ in range(2)]
        first, second = (request_id for request_id, message in peer.received if isinstance(message, m.Publish))
        peer.say(m.Error(1008, Advice.RECONNECT_ELSEWHERE, "busy", retry_after_ms=2000), first)
        stage.network.pump()
        self.assertIsNone(stage.client.welcome)
        self.assertFalse(peer.client_closed)
        ok = m.PublishOk("id1", "news", 1, "e1", m.Durability.MEMORY)
        peer.say(ok, second)
        stage.network.pump()
        self.assertIsInstance(results[0][0], RequestRefused)
        self.assertEqual(results[1], [ok])
        self.assertEqual(stage.heard(Disconnected), [Disconnected(1008, Advice.RECONNECT_ELSEWHERE, "busy", 2.0)])
        stage.advance(2)
        self.assertEqual(stage.peer.address[0], "host1")

    def test_an_overloaded_server_is_left_in_time_even_if_it_answers_nothing(self) -> None:
        stage = self.stage(request_timeout=60)
        peer = stage.start()
        result = stage.run(stage.client.publish("news", b"hi", idempotency_key=""))
        peer.say(m.Error(1008, Advice.RECONNECT, "busy"))
        stage.advance(9.9)
        self.assertFalse(peer.client_closed)
        stage.advance(0.2)
        self.assertTrue(peer.client_closed)
        self.assertIsInstance(result[0], ConnectionLost)

    def test_what_2008_taught_is_kept_for_the_next_connection(self) -> None:
        stage = self.stage()
        stage.start()
        stage.peer.say(m.Error.of(Code.TOO_MANY_PINGS))
        stage.network.pump()
        stage.client.drop()
        stage.advance(6)
        connection = stage.client._line._connection
        assert connection is not None
        self.assertEqual(connection.slowdown, 2.0)

    def test_a_server_that_does_not_answer_our_close_is_cut(self) -> None:
        stage = self.stage()
        peer = stage.start()
        peer.hangs_up = False
        result = stage.run(stage.client.stop())
        stage.advance(4.8)
        self.assertEqual(result, [])
        stage.advance(0.3)
        self.assertTrue(peer.transport.aborted)
        self.assertEqual(result, [None])

    def test_stop_says_goodbye(self) -> None:
        stage = self.stage()
        peer = stage.start()
        self.assertEqual(stage.run(stage.client.stop()), [None])
        self.assertEqual([goaway.code for goaway in peer.messages(m.GoAway)], [0])
        self.assertEqual(stage.heard(Stopped)[0].reason, StopReason.REQUESTED)

    def test_stop_while_connecting_cancels_the_try(self) -> None:
        stage = self.stage()
        stage.network.answers = False
        stage.client.start()
        stage.advance(0)
        self.assertEqual(stage.run(stage.client.stop()), [None])
        self.assertEqual(stage.network.cancelled, 1)

    def test_a_stopped_client_takes_nothing(self) -> None:
        stage = self.stage()
        stage.start()
        stage.run(stage.client.stop())
        self.assertRaises(ClientStopped, stage.client.start)
        for request in (stage.client.connected(), stage.client.publish("news", b"hi")):
            self.assertIsInstance(stage.run(request)[0], ClientStopped)

    def test_stopping_from_within_an_event_makes_no_further_try(self) -> None:
        stage = self.stage()
        stage.start()

        def stop(event: object) -> None:
            if isinstance(event, Disconnected):
                stage.run(stage.client.stop())

        stage.client._on_event = stop
        stage.peer.cut()
        stage.advance(100)
        self.assertEqual(len(stage.network.peers), 1)

    def test_an_event_listener_that_raises_harms_nobody(self) -> None:
        stage = self.stage()

        def raises(event: object) -> None:
            raise ValueError("secret")

        stage.client._on_event = raises
        stage.start()
        self.assertIsNotNone(stage.client.welcome)


class DegradedTests(StageCase):
    def degrade(self, *subscribed: m.Subscribed) -> Stage:
        """A client that lost its connection and failed twice: the next one is a short one."""
        stage = self.stage()
        stage.greet_with(*subscribed, reconnect=QUICK)
        stage.start()
        stage.network.reachable = False
        stage.peer.cut()
        while not stage.heard(Degraded):
            stage.advance(0.1)
        stage.network.reachable = True
        stage.advance(2)
        return stage

    def test_a_short_connection_collects_acknowledges_and_leaves(self) -> None:
        stage = self.degrade(NEWS)
        peer = stage.peer
        self.assertTrue(stage.heard(Connected)[-1].degraded)
        peer.deliver("news", 1, 2)
        stage.network.pump()
        self.assertFalse(peer.client_closed)
        peer.say(m.BacklogEnd("news", 2))
        stage.network.pump()
        self.assertTrue(peer.client_closed)
        self.assertEqual(peer.messages(m.Ack)[-1], m.Ack("news", 2, m.Outcome.PROCESSED))
        self.assertEqual(stage.heard(BacklogEnded), [BacklogEnded("news")])

    def test_after_two_short_connections_one_stays(self) -> None:
        stage = self.degrade(NEWS)
        for number in (2, 3):
            self.assertEqual(len(stage.network.peers), number)
            self.assertIsNone(stage.client.welcome)
            stage.peer.say(m.BacklogEnd("news", 0))
            stage.network.pump()
            self.assertTrue(stage.peer.client_closed)
            stage.advance(4)
        self.assertEqual(len(stage.network.peers), 4)
        stage.peer.say(m.BacklogEnd("news", 0))
        stage.advance(20)
        self.assertIsNotNone(stage.client.welcome)

    def test_a_short_connection_takes_no_requests_and_connected_waits_for_a_real_one(self) -> None:
        stage = self.degrade(NEWS)
        self.assertIsInstance(stage.run(stage.client.publish("news", b"hi"))[0], NotConnected)
        self.assertEqual(stage.run(stage.client.connected()), [])

    def test_a_backlog_that_does_not_end_is_a_failure(self) -> None:
        stage = self.degrade(NEWS)
        peer = stage.peer
        stage.advance(60)
        self.assertTrue(peer.client_closed)
        self.assertEqual(stage.peer.messages(m.Ack), [])
        self.assertGreaterEqual(stage.client._line._reconnect.tries, 3)

    def test_without_channels_there_is_nothing_to_collect(self) -> None:
        stage = self.degrade()
        self.assertTrue(stage.network.peers[1].client_closed)


class LostSubscriptionTests(StageCase):
    def test_a_channel_that_is_refused_in_welcome_is_reported(self) -> None:
        stage = self.stage()
        stage.greet_with(NEWS)
        stage.start()
        stage.greet_with(m.Subscribed("news", code=Code.FORBIDDEN, detail="no more"))
        stage.peer.cut()
        stage.advance(6)
        self.assertEqual(stage.heard(SubscriptionLost), [SubscriptionLost("news", Code.FORBIDDEN, "no more")])


class PublisherTests(StageCase):
    def test_without_on_message_deliveries_are_left_alone(self) -> None:
        stage = self.stage(on_message=None, settings=SessionSettings())
        stage.greet_with(NEWS)
        stage.start().deliver("news", 1)
        stage.advance(1)
        self.assertEqual(stage.peer.messages(m.Ack), [])
        self.assertIsNotNone(stage.client.welcome)
