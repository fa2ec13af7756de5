"""A connection of the simulated Apple with stock h2 at the other end: answers, and each misbehaviour."""

from __future__ import annotations

import json
from dataclasses import replace
from unittest import TestCase

from streampush.apns.http2 import ErrorCode, FrameReader
from streampush.apns.simulator import Ending, Environment, Orders, Reason, SimulatedApple, Validation, When
from streampush.apns.simulator.orders import (
    AgeEnd,
    Close,
    Delay,
    DropLimit,
    EndlessHeaders,
    Freeze,
    Garbage,
    GoAway,
    GoAwayAtOnce,
    Http11,
    HugeHeaders,
    IdleEnd,
    OddAnswer,
    OneStreamFirst,
    Order,
    RefuseStream,
    Reject,
    ResetStream,
    Stall,
    StopReading,
    TinyWindows,
    UnusualAnswer,
    UseTable,
)
from tests.apns.simulator.providers import MINTED, PAYLOAD, TOKEN, TOPIC, H2Provider

VALIDATION = Validation(keys=(MINTED.key,))
APNS_ID = "123e4567-e89b-12d3-a456-4266554400a0"


class ConnectionCase(TestCase):
    def connect(self, *orders: Order, validation: Validation = VALIDATION, chunk: int = 1 << 20) -> H2Provider:
        self.apple = SimulatedApple(validation, Orders(orders))
        return H2Provider(self.apple.connect(0.0), chunk=chunk)

    def again(self) -> H2Provider:
        return H2Provider(self.apple.connect(0.0))


class AnswerTests(ConnectionCase):
    def test_a_good_push_is_accepted_with_its_apns_id(self) -> None:
        answer = self.connect().answer(apns_id=APNS_ID)
        self.assertEqual((answer.status, answer.body, answer.ended), (200, b"", True))
        self.assertEqual(answer.fields[b"apns-id"], APNS_ID.encode())

    def test_without_an_apns_id_apple_makes_one(self) -> None:
        provider = self.connect()
        first, second = (provider.answer().fields[b"apns-id"] for _ in range(2))
        self.assertRegex(first.decode(), r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
        self.assertNotEqual(first, second)

    def test_only_the_sandbox_gives_a_unique_id(self) -> None:
        self.assertIn(b"apns-unique-id", self.connect().answer().fields)
        production = replace(VALIDATION, environment=Environment.PRODUCTION)
        self.assertNotIn(b"apns-unique-id", self.connect(validation=production).answer().fields)

    def test_a_rejection_has_its_reason_as_json(self) -> None:
        answer = self.connect().answer(apns_priority="7", apns_id=APNS_ID)
        self.assertEqual((answer.status, json.loads(answer.body)), (400, {"reason": "BadPriority"}))
        self.assertEqual(answer.fields[b"apns-id"], APNS_ID.encode())

    def test_an_inactive_token_has_the_time_in_milliseconds(self) -> None:
        provider = self.connect()
        self.apple.devices.unregister(TOKEN, 1234.5)
        answer = provider.answer()
        self.assertEqual((answer.status, json.loads(answer.body)), (410, {"reason": "Unregistered", "timestamp": 1234500}))

    def test_what_was_processed_is_recorded_without_the_token(self) -> None:
        provider = self.connect()
        provider.answer(apns_id=APNS_ID, apns_collapse_id="score")
        (record,) = self.apple.ledger
        self.assertTrue(record.accepted)
        self.assertEqual((record.apns_id, record.topic, record.collapse_id), (APNS_ID, TOPIC, "score"))
        self.assertEqual((record.connection, record.stream_id, record.payload_size), (1, 1, len(PAYLOAD)))
        self.assertNotIn(TOKEN, repr(record))

    def test_a_push_accepted_twice_is_seen(self) -> None:
        provider = self.connect()
        provider.answer(apns_id=APNS_ID)
        provider.answer(apns_id=APNS_ID)
        self.assertEqual(self.apple.ledger.doubles(), {APNS_ID: 2})

    def test_the_payload_goes_to_who_asks_for_it(self) -> None:
        seen: list[tuple[str, bytes]] = []
        apple = SimulatedApple(VALIDATION, on_processed=lambda record, payload: seen.append((record.apns_id, payload)))
        H2Provider(apple.connect(0.0)).answer(apns_id=APNS_ID)
        self.assertEqual(seen, [(APNS_ID, PAYLOAD)])

    def test_a_date_is_given_when_asked_for(self) -> None:
        self.assertNotIn(b"date", self.connect().answer().fields)
        provider = self.connect(validation=replace(VALIDATION, send_date=True))
        self.assertEqual(provider.answer().fields[b"date"], b"Thu, 01 Jan 1970 00:00:00 GMT")

    def test_many_at_once_are_all_answered(self) -> None:
        provider = self.connect()
        for _ in range(200):
            provider.push(payload=b'{"x":"%s"}' % (b"y" * 4000))
        provider.exchange()
        self.assertEqual({answer.status for answer in provider.answers.values()}, {200})
        self.assertEqual(self.apple.ledger.accepted, 200)

    def test_byte_by_byte_is_the_same(self) -> None:
        provider = self.connect(chunk=1)
        self.assertEqual(provider.answer().status, 200)
        self.assertEqual(provider.answer(payload=b"").reason, "PayloadEmpty")
        self.assertFalse(self.apple.ledger.faults)

    def test_a_body_that_is_far_too_long_is_answered_before_its_end(self) -> None:
        provider = self.connect()
        answer = provider.answer(payload=b"x" * 100_000)
        self.assertEqual((answer.status, answer.reason), (413, "PayloadTooLarge"))

    def test_a_request_that_the_client_gives_up_is_not_answered(self) -> None:
        provider = self.connect(Delay(1.0))
        stream_id = provider.push()
        provider.exchange()
        provider.h2.reset_stream(stream_id)
        provider.advance(2.0)
        self.assertEqual(provider.answers[stream_id].status, 0)
        self.assertEqual(self.apple.ledger.accepted, 1)

    def test_more_than_the_limit_is_refused_and_counted(self) -> None:
        self.apple = SimulatedApple(VALIDATION, Orders((Stall(),)), max_streams=2)
        provider = H2Provider(self.apple.connect(0.0), patient=False)
        for _ in range(5):
            provider.push()
        provider.exchange()
        self.assertEqual([answer.reset for answer in provider.answers.values()], [None, None, 7, 7, 7])
        self.assertEqual(self.apple.ledger.over_limit, 3)

    def test_a_client_that_breaks_the_protocol_is_written_down(self) -> None:
        provider = self.connect()
        self.apple.connect(0.0).receive(b"GET / HTTP/1.1\r\n", 0.0)
        (fault,) = self.apple.ledger.faults
        self.assertEqual((fault.connection, fault.code), (2, "PROTOCOL_ERROR"))
        self.assertIsNone(provider.connection.ending)


class RequestOrderTests(ConnectionCase):
    def test_every_tenth_is_refused_and_not_processed(self) -> None:
        provider = self.connect(RefuseStream(When(every=10)))
        for _ in range(20):
            provider.push()
        provider.exchange()
        refused = [answer for answer in provider.answers.values() if answer.reset == ErrorCode.REFUSED_STREAM]
        self.assertEqual((len(refused), self.apple.ledger.accepted, self.apple.ledger.requests), (2, 18, 20))

    def test_cancel_after_the_body_is_processed_or_not(self) -> None:
        for processed in (True, False):
            answer = self.connect(ResetStream(processed=processed)).answer()
            self.assertEqual((answer.reset, self.apple.ledger.accepted), (ErrorCode.CANCEL, int(processed)))

    def test_a_stalled_request_leaves_the_others_alone(self) -> None:
        provider = self.connect(Stall(When(at=1)))
        stalled, other = provider.answer(), provider.answer()
        provider.advance(3600.0)
        self.assertEqual((stalled.status, stalled.reset, other.status), (0, None, 200))

    def test_a_rejection_on_order_has_reason_timestamp_and_retry_after(self) -> None:
        gone = self.connect(Reject(Reason.UNREGISTERED, ago=0.0)).answer()
        self.assertEqual((gone.status, json.loads(gone.body)), (410, {"reason": "Unregistered", "timestamp": 0}))
        busy = self.connect(Reject(Reason.SERVICE_UNAVAILABLE, retry_after=7)).answer()
        self.assertEqual((busy.status, busy.fields[b"retry-after"]), (503, b"7"))
        plain = self.connect(Reject(Reason.SERVICE_UNAVAILABLE)).answer()
        self.assertNotIn(b"retry-after", plain.fields)

    def test_an_odd_answer_is_no_json(self) -> None:
        answer = self.connect(OddAnswer()).answer()
        self.assertEqual((answer.status, answer.body[:6]), (502, b"<html>"))
        self.assertEqual(len(self.apple.ledger), 0)

    def test_the_first_order_that_applies_decides(self) -> None:
        answer = self.connect(Reject(Reason.TOO_MANY_REQUESTS), Reject(Reason.INTERNAL_SERVER_ERROR)).answer()
        self.assertEqual(answer.status, 429)

    def test_a_slow_answer_comes_when_it_is_due(self) -> None:
        provider = self.connect(Delay(0.2))
        answer = provider.answer()
        provider.advance(0.19)
        self.assertEqual(answer.status, 0)
        provider.advance(0.02)
        self.assertEqual(answer.status, 200)

    def test_garbage_is_no_frame_and_nothing_follows_it(self) -> None:
        provider = self.connect(Garbage(size=100))
        provider.push()
        provider.push()
        provider.connection.receive(provider.h2.data_to_send(), 0.0)
        reader = FrameReader()
        reader.feed(provider.connection.outbound())
        self.assertIsNotNone(reader.fault)
        self.assertEqual(provider.connection.outbound(), b"")

    def test_endless_headers_are_one_block_without_an_end(self) -> None:
        provider = self.connect(EndlessHeaders(size=100_000))
        provider.push()
        provider.push()
        provider.connection.receive(provider.h2.data_to_send(), 0.0)
        kinds = [kind for kind, flags, _, _ in FrameReader().feed(provider.connection.outbound()) if kind not in (4, 8)]
        self.assertEqual(kinds, [1, *[9] * 6])

    def test_huge_headers_are_a_whole_answer(self) -> None:
        provider = self.connect(HugeHeaders(size=40_000))
        provider.h2.local_settings.max_header_list_size = 1 << 20
        provider.h2.decoder.max_header_list_size = 1 << 20
        self.assertEqual(len(provider.answer().fields[b"x-filler"]), 40_000)

    def test_an_unusual_answer_says_the_same(self) -> None:
        provider = self.connect(UnusualAnswer())
        self.assertEqual(provider.answer(apns_id=APNS_ID).fields[b"apns-id"], APNS_ID.encode())
        self.assertEqual(provider.answer(apns_priority="7").reason, "BadPriority")

    def test_an_unusual_answer_waits_for_windows_like_any_other(self) -> None:
        provider = self.connect(UnusualAnswer())
        provider.h2.update_settings({4: 10})
        provider.exchange()
        self.assertEqual(provider.answer(apns_priority="7").reason, "BadPriority")

    def test_answers_that_use_a_table_say_the_same(self) -> None:
        provider = self.connect(UseTable())
        for _ in range(60):  # more than the table holds
            answer = provider.answer()
            self.assertEqual((answer.status, len(answer.fields[b"apns-id"])), (200, 36))
        self.assertEqual(provider.answer(apns_id=APNS_ID, apns_priority="7").fields[b"apns-id"], APNS_ID.encode())


class GoAwayTests(ConnectionCase):
    def test_an_orderly_one_answers_all_up_to_it_and_nothing_behind(self) -> None:
        provider = self.connect(GoAway(When(at=3)))
        ids = [provider.push() for _ in range(5)]
        provider.connection.receive(provider.h2.data_to_send(), 0.0)
        self.assertIs(provider.connection.ending, Ending.CLOSE)
        self.assertEqual([record.stream_id for record in self.apple.ledger], ids[:3])
        provider.exchange()
        self.assertEqual(provider.goaways, [(ids[2], 0, b"")])

    def test_it_is_the_same_byte_by_byte(self) -> None:
        provider = self.connect(GoAway(When(at=3)), chunk=1)
        ids = [provider.push() for _ in range(5)]
        provider.exchange()
        self.assertEqual([record.stream_id for record in self.apple.ledger], ids[:3])

    def test_late_answers_are_waited_for_but_not_for_ever(self) -> None:
        provider = self.connect(Delay(1.0), Stall(When(at=2)), GoAway(When(at=2), linger=5.0))
        provider.push()
        provider.push()
        provider.exchange()
        provider.advance(4.9)
        self.assertIsNone(provider.connection.ending)
        provider.advance(0.2)
        self.assertIs(provider.connection.ending, Ending.CLOSE)

    def test_with_an_error_only_what_was_processed_lies_below_the_last_id(self) -> None:
        provider = self.connect(Delay(1.0, When(at=2)), GoAway(When(at=3), code=2))
        ids = [provider.push() for _ in range(4)]
        provider.exchange()
        self.assertEqual(provider.goaways, [(ids[1], 2, b"")])
        self.assertEqual([record.stream_id for record in self.apple.ledger], ids[:2])

    def test_twice_names_no_stream_first(self) -> None:
        provider = self.connect(GoAway(When(at=1), twice=True, pause=0.5))
        self.assertEqual(provider.answer().status, 200)
        self.assertEqual(provider.goaways, [(2**31 - 1, 0, b"")])
        provider.advance(0.6)
        self.assertEqual(provider.goaways[1:], [(1, 0, b"")])
        self.assertIs(provider.connection.ending, Ending.CLOSE)

    def test_the_reason_is_apples_json(self) -> None:
        provider = self.connect(GoAway(When(at=1), reason="Shutdown"))
        provider.answer()
        self.assertEqual(json.loads(provider.goaways[0][2]), {"reason": "Shutdown"})

    def test_at_once_comes_in_place_of_settings(self) -> None:
        apple = SimulatedApple(VALIDATION, Orders((GoAwayAtOnce(When(at=1), reason="Shutdown"),)))
        connection = apple.connect(0.0)
        self.assertIs(connection.ending, Ending.CLOSE)
        self.assertEqual(connection.outbound()[3], 7)
        self.assertEqual(H2Provider(apple.connect(0.0)).answer().status, 200)

    def test_per_connection_counts_anew(self) -> None:
        provider = self.connect(GoAway(When(at=2, per_connection=True)))
        provider.push()
        provider.exchange()
        other = self.again()
        other.push()
        other.exchange()
        self.assertEqual((provider.goaways, other.goaways), ([], []))
        other.push()
        other.exchange()
        self.assertEqual(len(other.goaways), 1)


class ConnectionOrderTests(ConnectionCase):
    def test_closed_without_a_word_after_it_was_processed_or_not(self) -> None:
        for processed in (True, False):
            provider = self.connect(Close(When(at=2), processed=processed, reset=not processed))
            first, second = provider.answer(), provider.answer()
            self.assertEqual((first.status, second.status, provider.goaways), (200, 0, []))
            self.assertIs(provider.connection.ending, Ending.CLOSE if processed else Ending.RESET)
            self.assertEqual(self.apple.ledger.accepted, 1 + processed)

    def test_a_frozen_connection_answers_not_even_a_ping(self) -> None:
        provider = self.connect(Freeze(When(at=2)))
        self.assertEqual(provider.answer().status, 200)
        self.assertEqual(provider.answer().status, 0)
        provider.h2.ping(b"12345678")
        provider.connection.receive(provider.h2.data_to_send(), 1.0)
        self.assertEqual(provider.connection.outbound(), b"")
        self.assertIsNone(provider.connection.ending)

    def test_one_that_stops_reading_says_so(self) -> None:
        provider = self.connect(StopReading(When(at=2)))
        provider.answer()
        self.assertTrue(provider.connection.reading)
        provider.answer()
        self.assertFalse(provider.connection.reading)

    def test_one_stream_until_the_first_good_token(self) -> None:
        provider = self.connect(OneStreamFirst())
        self.assertEqual(provider.limits, [1])
        self.assertEqual(provider.answer(authorization="bearer nonsense").status, 403)
        self.assertEqual(provider.limits, [1])
        self.assertEqual(provider.answer(payload=b"").status, 400)
        self.assertEqual(provider.limits, [1, 1000])

    def test_the_limit_drops_after_a_rejection_and_comes_back(self) -> None:
        provider = self.connect(DropLimit(streams=2, seconds=1.0))
        provider.answer(payload=b"")
        self.assertEqual(provider.limits, [1000, 2])
        provider.advance(1.1)
        self.assertEqual(provider.limits, [1000, 2, 1000])

    def test_tiny_windows_let_a_body_through_in_pieces(self) -> None:
        provider = self.connect(TinyWindows(window=7))
        self.assertEqual(provider.answer(payload=b'{"x":"%s"}' % (b"y" * 4000)).status, 200)

    def test_windows_that_open_late(self) -> None:
        provider = self.connect(TinyWindows(window=30, pause=1.0))
        answer = provider.answer(payload=b'{"x":"%s"}' % (b"y" * 100))
        provider.advance(2.9)
        self.assertEqual(answer.status, 0)
        provider.advance(2.0)
        self.assertEqual(answer.status, 200)

    def test_an_idle_connection_ends_with_apples_reason(self) -> None:
        provider = self.connect(IdleEnd(60.0))
        provider.advance(30.0)
        provider.answer()
        provider.advance(59.0)
        self.assertEqual(provider.goaways, [])
        provider.advance(31.0)
        self.assertEqual(json.loads(provider.goaways[0][2]), {"reason": "IdleTimeout"})
        self.assertIs(provider.connection.ending, Ending.CLOSE)

    def test_a_connection_has_an_age_at_which_it_ends(self) -> None:
        provider = self.connect(AgeEnd(60.0, "Shutdown"), Delay(5.0))
        provider.advance(58.0)
        answer = provider.answer()
        provider.advance(2.5)
        self.assertEqual((provider.goaways, answer.status), ([(1, 0, b'{"reason":"Shutdown"}')], 0))
        provider.advance(3.0)
        self.assertEqual((provider.connection.ending, answer.status), (Ending.CLOSE, 200))

    def test_http_1_answers_anything_with_400(self) -> None:
        connection = SimulatedApple(VALIDATION, Orders((Http11(),))).connect(0.0)
        self.assertEqual((connection.speaks_http2, connection.outbound()), (False, b""))
        connection.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0.0)
        self.assertTrue(connection.outbound().startswith(b"HTTP/1.1 400 "))
        self.assertIs(connection.ending, Ending.CLOSE)
