"""GET /v1/messages/{id}/events, as a client reads it (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streampush.protocol.terms import Milestone
from streampush.rest.events import BEAT_INTERVAL, MAX_ID_DEVICES, STALL_TIMEOUT, Told
from tests.rest.support import ALL, READER, Api, Line, receipt, render

PATH = "/v1/messages/M1/events"


@dataclass
class Event:
    name: str
    data: dict[str, Any]
    id: str


def unchunked(body: bytes) -> tuple[bytes, bool]:
    """What came of a chunked body (RFC 9112 section 7.1), and whether that was all of it."""
    data = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return data, True
        data += rest[:length]
        body = rest[length + 2 :]
    return data, False


class Listener:
    """A client of an event stream."""

    def __init__(self, api: Api, *, key: str = ALL, **headers: str) -> None:
        self.api = api
        self.line: Line = api.connect()
        self.line.send(render("GET", PATH, key=key, **headers))

    @property
    def head(self) -> str:
        return self.line.transport.value().partition(b"\r\n\r\n")[0].decode()

    @property
    def text(self) -> str:
        return unchunked(self.line.transport.value().partition(b"\r\n\r\n")[2])[0].decode()

    @property
    def complete(self) -> bool:
        return unchunked(self.line.transport.value().partition(b"\r\n\r\n")[2])[1]

    @property
    def events(self) -> list[Event]:
        found, last_id = [], ""
        for block in self.text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
            last_id = fields.get("id", last_id)
            if "data" in fields:
                found.append(Event(fields["event"], json.loads(fields["data"]), last_id))
        return found

    @property
    def milestones(self) -> list[tuple[str, str]]:
        return [(event.data["device_id"], event.data["milestone"]) for event in self.events if event.name == "milestone"]


def test_the_present_rows_come_first_then_each_milestone() -> None:
    api = Api()
    listener = Listener(api)
    api.push.receipts.tell(receipt("phone", written=1_100))
    assert [(event.name, event.data) for event in listener.events] == [
        ("state", {"state": "stored"}),
        ("milestone", {"device_id": "phone", "milestone": "accepted", "at_ms": 1_000}),
        ("milestone", {"device_id": "phone", "milestone": "stored", "at_ms": 1_000}),
        ("milestone", {"device_id": "phone", "milestone": "written", "at_ms": 1_100}),
    ]
    api.push.receipts.tell(receipt("phone", written=1_100, delivered=1_200))
    assert listener.milestones[3:] == [("phone", "delivered")]


def test_it_is_an_event_stream_that_nobody_may_keep() -> None:
    head = Listener(Api()).head
    assert head.startswith("HTTP/1.1 200 ")
    for line in (
        "Content-Type: text/event-stream",
        "Cache-Control: no-store",
        "X-Accel-Buffering: no",
        "Transfer-Encoding: chunked",
    ):
        assert line in head
    assert "Content-Length" not in head


def test_it_ends_when_every_device_is_at_an_end_and_the_connection_goes_on() -> None:
    api = Api()
    listener = Listener(api)
    api.push.receipts.tell(receipt("phone", delivered=1_100, processed=1_200))
    assert (listener.events[-1].name, listener.events[-1].data) == ("end", {"reason": "complete"})
    assert listener.complete
    assert not listener.line.closing
    assert (len(api.site.streams), api.push.receipts.watches) == (0, {})
    listener.line.transport.clear()
    listener.line.send(render("GET", "/healthz"))
    assert listener.line.responses()[0].status == 200


def test_delivered_is_no_end() -> None:
    api = Api()
    listener = Listener(api)
    api.push.receipts.tell(receipt("phone", delivered=1_100))
    assert listener.events[-1].name == "milestone"
    assert not listener.complete


def test_a_message_that_leaves_the_log_ends_it() -> None:
    api = Api()
    listener = Listener(api)
    api.push.receipts.lose()
    assert listener.events[-1].data == {"reason": "gone"}
    assert listener.complete


def test_a_topic_has_counts() -> None:
    api = Api()
    listener = Listener(api)
    for number in (1, 1, 2):
        api.push.receipts.tell(channel="news", counts={Milestone.DELIVERED: number})
    assert [event.data for event in listener.events if event.name == "counts"] == [{"delivered": 1}, {"delivered": 2}]


def test_unknown_message_is_an_answer_and_no_stream() -> None:
    api = Api()
    response = api.request("GET", "/v1/messages/M2/events")
    assert (response.status, response.json()["code"]) == (404, 3006)


def test_head_opens_no_stream() -> None:
    api = Api()
    line = api.connect()
    line.send(render("HEAD", PATH))
    assert line.transport.value().startswith(b"HTTP/1.1 200 ")
    assert len(api.site.streams) == 0


# ---------------------------------------------------------------------------------------------------------------- resuming


def test_with_the_last_id_nothing_is_missed_and_nothing_comes_twice() -> None:
    api = Api()
    first = Listener(api)
    api.push.receipts.tell(receipt("phone", written=1_100), receipt("tablet", written=1_100))
    events = [event for event in first.events if event.name == "milestone"]
    for seen in range(len(events) + 1):
        headers = {"Last_Event_ID": events[seen - 1].id} if seen else {}
        again = Listener(api, **headers)
        api.push.receipts.tell(receipt("phone", written=1_100), receipt("tablet", written=1_100, delivered=1_150))
        told = first.milestones[:seen] + again.milestones
        assert sorted(told) == sorted(set(told))
        assert set(told) == {*first.milestones, ("tablet", "delivered")}


def test_an_id_of_another_message_or_of_nobody_stands_for_nothing() -> None:
    told = Told("M2")
    told.meets(["phone"])
    told.add("phone", Milestone.WRITTEN)
    for last_id in (told.token(), "?", "x" * 10_000, "AAAA", "\xe9"):
        api = Api()
        listener = Listener(api, Last_Event_ID=last_id)
        api.push.receipts.tell(receipt("phone", written=1_100))
        assert len(listener.milestones) == 3


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.frozensets(st.sampled_from(list(Milestone)[1:])), max_size=8))
def test_an_id_stands_for_exactly_what_was_told(told: dict[str, frozenset[Milestone]]) -> None:
    before = Told("M1")
    before.meets(told)
    for device_id, milestones in told.items():
        for milestone in milestones:
            before.add(device_id, milestone)
    after = Told("M1", before.token())
    after.meets(told)
    assert after.bits == before.bits


def test_with_very_many_devices_events_have_no_id() -> None:
    told = Told("M1")
    told.meets(f"d{number}" for number in range(MAX_ID_DEVICES))
    for number in range(MAX_ID_DEVICES):
        told.add(f"d{number}", Milestone.EXPIRED)
    again = Told("M1", told.token())
    again.meets(["d0"])
    assert again.bits == {"d0": 1 << Milestone.EXPIRED}
    told.meets(["one more"])
    assert told.token() == ""


# -------------------------------------------------------------------------------------------------------------------- time


def test_a_comment_comes_while_nothing_happens_and_the_message_is_looked_at_again() -> None:
    api = Api()
    listener = Listener(api)
    api.clock.pump([BEAT_INTERVAL] * 3)
    assert listener.text.count(": still here\n\n") == 3
    assert api.push.receipts.looked == 3


def test_the_time_for_a_request_does_not_end_a_stream() -> None:
    api = Api(request_timeout=1.0)
    listener = Listener(api)
    api.clock.pump([1.0] * 10)
    assert not listener.complete
    assert not listener.line.closing


def test_it_ends_after_its_longest_time() -> None:
    api = Api(max_event_time=60.0)
    listener = Listener(api)
    api.clock.pump([BEAT_INTERVAL] * 4)
    assert listener.events[-1].data == {"reason": "max_time"}
    assert listener.complete


def test_the_end_of_a_stream_leaves_no_timer() -> None:
    api = Api()
    listener = Listener(api)
    api.push.receipts.lose()
    listener.line.lose()
    assert api.clock.getDelayedCalls() == []


# ------------------------------------------------------------------------------------------------------------------ bounds


def test_a_client_that_has_gone_leaves_nothing() -> None:
    api = Api()
    listener = Listener(api)
    listener.line.lose()
    assert (len(api.site.streams), api.push.receipts.watches, api.clock.getDelayedCalls()) == (0, {}, [])
    assert api.registry.get_sample_value("streampush_event_streams") == 0


def test_a_client_that_does_not_read_is_told_when_it_does() -> None:
    api = Api()
    listener = Listener(api)
    listener.line.transport.producer.pauseProducing()
    api.push.receipts.tell(receipt("phone", written=1_100))
    api.push.receipts.tell(receipt("phone", written=1_100, delivered=1_200))
    assert listener.events == []
    listener.line.transport.producer.resumeProducing()
    assert [name for _, name in listener.milestones] == ["accepted", "stored", "written", "delivered"]


def test_a_client_that_stops_in_the_middle_misses_nothing() -> None:
    api = Api()
    listener = Listener(api)
    transport = listener.line.transport
    write = transport.writeSequence

    def full_after_each(data: list[bytes]) -> None:
        write(data)
        transport.producer.pauseProducing()

    transport.writeSequence = full_after_each
    api.push.receipts.tell(receipt("phone", written=1_100))
    api.push.receipts.tell(receipt("phone", written=1_100, processed=1_200))
    assert listener.milestones == []
    for told in (1, 2, 3, 4, 4):
        transport.producer.resumeProducing()
        assert len(listener.milestones) == told
    assert [name for _, name in listener.milestones] == ["accepted", "stored", "written", "processed"]
    assert listener.events[-1].name == "end"


def test_a_client_that_does_not_read_for_long_is_cut() -> None:
    api = Api()
    listener = Listener(api)
    listener.line.transport.producer.pauseProducing()
    api.clock.pump([BEAT_INTERVAL] * int(STALL_TIMEOUT / BEAT_INTERVAL))
    assert listener.line.aborted


def test_streams_of_the_node_are_bounded() -> None:
    api = Api(max_event_streams=2)
    Listener(api)
    leaving = Listener(api, key=READER)
    response = api.request("GET", PATH)
    assert (response.status, response.json()["code"]) == (503, 1008)
    leaving.line.lose()
    assert Listener(api).head.startswith("HTTP/1.1 200")


def test_streams_of_a_key_are_bounded() -> None:
    api = Api(max_event_streams_per_key=1)
    first = Listener(api)
    assert api.request("GET", PATH).status == 503
    first.line.lose()
    assert Listener(api).head.startswith("HTTP/1.1 200")
    assert api.request("GET", PATH).status == 503
    assert Listener(api, key=READER).head.startswith("HTTP/1.1 200")


def test_a_node_that_watches_too_much_says_so() -> None:
    api = Api()
    api.push.receipts.full = True
    assert (api.request("GET", PATH).status, len(api.site.streams), api.clock.getDelayedCalls()[1:]) == (503, 0, [])


def test_a_stop_of_the_node_ends_streams_and_lets_no_new_ones_in() -> None:
    api = Api()
    listener = Listener(api)
    api.site.streams.stop("the node is being stopped")
    assert listener.events[-1].data == {"reason": "draining"}
    assert listener.complete
    assert api.request("GET", PATH).json()["code"] == 1004


def test_what_is_told_is_counted() -> None:
    api = Api()
    listener = Listener(api)
    assert api.registry.get_sample_value("streampush_event_streams") == 1
    api.push.receipts.tell(receipt("phone", written=1_100), receipt("tablet", written=1_100))
    assert api.registry.get_sample_value("streampush_receipts_total", {"milestone": "written"}) == 2
    assert len(listener.milestones) == 6
