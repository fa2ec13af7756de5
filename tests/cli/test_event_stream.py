"""Reading Server-Sent Events: the parser, and following a message against a server whose answers are written down here."""

from __future__ import annotations

import json

import pytest
from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from streampush.cli.event_stream import MAX_EVENT_BYTES, MAX_RETRY_INTERVAL, MAX_TRIES, Event, EventParser, follow
from streampush.cli.exits import BadCredentials, Failure, NoConnection, RefusedByServer
from streampush.cli.rest_client import RestClient

STREAM = (
    b'retry: 250\n\nevent: state\ndata: {"state":"stored"}\n\n: still here\n\n'
    b'event: milestone\r\nid: abc\r\ndata: {"device_id":"d",\r\ndata: "milestone":"written"}\r\n\r\n'
)
EVENTS = [Event("state", {"state": "stored"}), Event("milestone", {"device_id": "d", "milestone": "written"})]


def test_events_are_read_whole_and_byte_by_byte() -> None:
    whole, split = EventParser(), EventParser()
    assert list(whole.feed(STREAM)) == EVENTS
    assert [event for at in range(len(STREAM)) for event in split.feed(STREAM[at : at + 1])] == EVENTS
    assert (split.last_id, split.retry) == ("abc", 0.25)


def test_a_new_connection_forgets_what_was_half_told() -> None:
    parser = EventParser()
    assert list(parser.feed(b'event: milestone\ndata: {"x"')) == []
    parser.begin()
    assert list(parser.feed(b'data: {"y":1}\n\n')) == [Event("", {"y": 1})]


def test_a_wait_without_end_is_cut_and_nonsense_is_passed_over() -> None:
    parser = EventParser()
    list(parser.feed(b"retry: 999999999\n\n"))
    assert parser.retry == MAX_RETRY_INTERVAL
    list(parser.feed(b"retry: soon\nretry: -1\nretry: 99999999999999\nmood: good\n\n"))
    assert parser.retry == MAX_RETRY_INTERVAL


@pytest.mark.parametrize("data", [b"data: [1]\n\n", b"data: {\n\n", b"data: \xff\n\n"])
def test_an_event_that_is_no_object_is_a_failure(data: bytes) -> None:
    with pytest.raises(Failure, match="no JSON object"):
        list(EventParser().feed(data))


@pytest.mark.parametrize("line", [b"data: " + b"x" * 1000 + b"\n", b"x" * 1000])
def test_an_event_without_end_is_a_failure(line: bytes) -> None:
    parser = EventParser()
    with pytest.raises(Failure, match=f"longer than {MAX_EVENT_BYTES} bytes"):
        for _ in range(MAX_EVENT_BYTES // 1000 + 2):
            list(parser.feed(line))


class Scripted(Resource):
    """Answers each request with the next of `answers`, a status and a body, at last always with the last. Keeps the ids."""

    isLeaf = True

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        super().__init__()
        self._answers = list(answers)
        self.ids: list[str | None] = []

    def render_GET(self, request: Request) -> int:
        self.ids.append(request.getHeader("last-event-id"))
        status, body = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        request.setResponseCode(status)
        request.write(body)
        if status == 200 and b"event: end" not in body:
            request.transport.loseConnection()  # in the middle of the answer
        else:
            request.finish()
        return NOT_DONE_YET


def end(reason: str) -> bytes:
    return b"event: end\ndata: " + json.dumps({"reason": reason}).encode() + b"\n\n"


class FollowTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.heard: list[Event] = []

    async def follow(self, *answers: tuple[int, bytes]) -> str:
        self.server = Scripted(*answers)
        port = reactor.listenTCP(0, Site(self.server), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        client = RestClient(reactor, f"http://127.0.0.1:{port.getHost().port}", "sp_secret", b"")
        self.addCleanup(client.close)
        return await follow(reactor, client, "/v1/messages/M1/events", self.heard.append)

    async def test_events_are_told_until_the_end_says_why(self) -> None:
        self.assertEqual(await self.follow((200, STREAM + end("complete"))), "complete")
        self.assertEqual((self.heard, self.server.ids), (EVENTS, [None]))

    async def test_a_lost_connection_is_made_again_from_the_last_id(self) -> None:
        quick = STREAM.replace(b"250", b"1")
        self.assertEqual(await self.follow((200, quick), (200, end("gone"))), "gone")
        self.assertEqual((self.heard, self.server.ids), (EVENTS, [None, "abc"]))

    async def test_an_end_behind_which_there_may_be_more_is_none(self) -> None:
        quick = STREAM.replace(b"250", b"1")
        reason = await self.follow((200, quick + end("max_time")), (200, end("draining")), (200, end("recalled")))
        self.assertEqual((reason, self.server.ids), ("recalled", [None, "abc", "abc"]))

    async def test_a_server_that_has_no_room_now_is_asked_again(self) -> None:
        quick = b"retry: 1\n\nevent: state\ndata: {}\n\n"
        reason = await self.follow((200, quick), (503, b"{}"), (200, end("complete")))
        self.assertEqual((reason, len(self.server.ids)), ("complete", 3))

    async def test_a_server_that_never_tells_anything_is_given_up(self) -> None:
        with self.assertRaisesRegex(NoConnection, "before it has told anything"):
            await self.follow((200, b"retry: 1\n\n"))
        self.assertEqual(len(self.server.ids), MAX_TRIES)

    async def test_a_refusal_ends_it_at_once(self) -> None:
        with self.assertRaisesRegex(RefusedByServer, "refused: 3006 no such message"):
            await self.follow((404, b'{"code": 3006, "detail": "no such message"}'))
        with self.assertRaises(BadCredentials) as caught:
            await self.follow((401, b"{}"))
        self.assertNotIn("sp_secret", str(caught.exception))

    async def test_another_kind_of_server_is_named(self) -> None:
        with self.assertRaisesRegex(Failure, "no JSON object"):
            await self.follow((200, b"data: hello\n\n"))
