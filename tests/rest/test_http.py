from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import Request

from streampush.rest.http import LINGER
from streampush.rest.intake import BODIES_HELD
from tests.rest.support import ALL, Api, Line, render

LIMIT = 2048
PUBLISH = {"topic": "news", "payload": "x"}


def chunked(path: str, key: str | None = ALL) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    return (head + (f"Authorization: Bearer {key}\r\n" if key else "") + "\r\n").encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_unknown_path_is_404() -> None:
    for path in ("/", "/v1", "/v1/publish/", "/v2/publish", "/v1/devices/", "/v1/devices/a/b/disconnect", "//healthz", "*"):
        response = Api().request("GET", path)
        assert (path, response.status) == (path, 404)
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_wrong_method_is_405_and_names_the_right_one(method: str) -> None:
    response = Api().request(method, "/v1/publish")
    assert (response.status, response.headers["allow"], response.json()["status"]) == (405, "POST", 405)


def test_head_is_answered_as_get_without_a_body() -> None:
    line = Api().connect()
    line.send(render("HEAD", "/healthz"))
    head, _, body = line.transport.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"Content-Length: 14" in head
    assert body == b""


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/jsonx"]
)
def test_body_of_another_type_is_415(content_type: str) -> None:
    api = Api()
    response = api.request("POST", "/v1/publish", PUBLISH, Content_Type=content_type)
    assert (response.status, response.headers["content-type"]) == (415, "application/problem+json")
    assert api.push.published == []


def test_content_type_may_have_parameters() -> None:
    assert Api().request("POST", "/v1/publish", PUBLISH, Content_Type="Application/JSON; charset=utf-8").status == 200


def test_announced_oversize_is_refused_before_a_byte_of_it_is_read() -> None:
    api = Api(max_body=LIMIT)
    line = api.connect()
    line.send(render("POST", "/v1/publish", b"", Content_Length=str(LIMIT + 1)))
    (response,) = line.responses()
    assert (response.status, response.json()["code"], response.headers["connection"]) == (413, 3004, "close")


def test_chunked_oversize_is_refused_when_it_passes_the_limit() -> None:
    api = Api(max_body=LIMIT)
    line = api.connect()
    line.send(chunked("/v1/publish") + chunk(b" " * LIMIT))
    assert line.responses() == []
    line.send(chunk(b" "))
    assert line.responses()[0].status == 413
    assert api.site.intake.held == 0


def test_refused_client_that_goes_on_sending_is_dropped_without_being_kept() -> None:
    api = Api(max_body=LIMIT)
    line = api.connect()
    line.send(render("POST", "/v1/publish", b"", Content_Length="1000000"))
    for _ in range(100):
        line.send(b"x" * 1000)
    assert api.site.intake.held == 0
    assert not line.closing
    api.clock.advance(LINGER)
    assert line.aborted
    assert len(line.responses()) == 1


def test_refused_client_that_finishes_is_closed_at_once() -> None:
    api = Api(max_body=LIMIT)
    line = api.connect()
    line.send(render("POST", "/v1/publish", b" " * (LIMIT + 1)))
    assert line.transport.disconnecting
    assert len(line.responses()) == 1
    line.lose()
    assert api.clock.getDelayedCalls() == []


def test_body_at_the_limit_is_taken() -> None:
    api = Api(max_body=LIMIT)
    body = b'{"topic":"news","payload":"x"}'.ljust(LIMIT)
    assert api.request("POST", "/v1/publish", body).status == 200


def test_no_body_is_read_from_a_client_without_a_key() -> None:
    api = Api()
    line = api.connect()
    line.send(chunked("/v1/publish", key=None))
    assert line.responses()[0].status == 401
    line.send(chunk(b"x" * 1000))
    assert api.site.intake.held == 0


def test_refused_client_is_not_asked_for_its_body() -> None:
    line = Api(max_body=LIMIT).connect()
    line.send(render("POST", "/v1/publish", b"", Content_Length="1000000", Expect="100-continue"))
    assert [response.status for response in line.responses()] == [413]


def test_bodies_of_all_connections_together_are_bounded() -> None:
    api = Api(max_body=1024, max_connections=100)
    lines = [api.connect() for _ in range(BODIES_HELD)]
    for line in lines:
        line.send(chunked("/v1/publish") + chunk(b" " * 1024))
    one_more = api.connect()
    one_more.send(chunked("/v1/publish") + chunk(b" "))
    (response,) = one_more.responses()
    assert (response.status, response.json()["code"], response.headers["retry-after"]) == (503, 1008, "1")
    for line in lines:
        line.lose()
    assert api.site.intake.held == 0


def test_answered_request_holds_nothing() -> None:
    api = Api()
    line = api.connect()
    line.send(render("POST", "/v1/publish", PUBLISH))
    assert line.responses()[0].status == 200
    assert api.site.intake.held == 0


def test_connection_serves_one_request_after_the_other() -> None:
    api = Api()
    line = api.connect()
    line.send(render("POST", "/v1/publish", PUBLISH) * 3 + render("GET", "/healthz"))
    assert [response.status for response in line.responses()] == [200] * 4
    assert not line.closing


def test_request_may_come_byte_by_byte() -> None:
    api = Api()
    line = api.connect()
    for byte in render("POST", "/v1/publish", PUBLISH):
        line.send(bytes([byte]))
    assert line.responses()[0].status == 200


def refused(api: Api) -> float | None:
    return api.registry.get_sample_value("streampush_rest_refused_connections_total")


def test_connection_above_the_limit_is_cut_and_counted_while_all_others_are_in_work() -> None:
    api = Api(max_connections=1)
    gate = api.push.gates["news"] = Deferred()
    first = api.connect()
    first.send(render("POST", "/v1/publish", PUBLISH))
    second = api.connect()
    assert second.aborted
    second.lose()
    gate.callback(None)
    assert first.responses()[0].status == 200
    assert refused(api) == 1
    first.lose()
    assert not api.connect().aborted


def test_an_answer_on_its_way_goes_out_before_its_connection_makes_room() -> None:
    api = Api(max_connections=1)
    first = api.connect()
    first.send(render("GET", "/healthz"))
    second = api.connect()
    assert (first.closing, first.aborted, second.aborted) == (True, False, False)
    assert first.responses()[0].status == 200
    api.clock.advance(LINGER)
    assert first.aborted
    first.lose()
    second.lose()
    assert (len(api.site.waiting), len(api.site.leaving)) == (0, 0)


def test_a_client_that_takes_its_last_answer_leaves_no_timer_behind() -> None:
    api = Api(max_connections=1)
    first = api.connect()
    first.send(render("GET", "/healthz"))
    second = api.connect()
    first.lose()
    second.lose()
    assert api.clock.getDelayedCalls() == []


def test_no_more_connections_linger_than_there_may_be() -> None:
    api = Api(max_connections=2)
    lines = []
    for _ in range(6):
        line = api.connect()
        line.send(render("GET", "/healthz"))
        lines.append(line)
    assert [line.aborted for line in lines] == [False, False, True, True, False, False]


@pytest.mark.parametrize(
    "said", [b"", b"GET /healthz HTTP/1.1\r\nHo", render("POST", "/v1/publish", PUBLISH)[:-1], render("GET", "/healthz")]
)
def test_the_connection_that_has_waited_longest_for_its_client_makes_room_for_another(said: bytes) -> None:
    api = Api(max_connections=3)
    first, second, third = api.connect(), api.connect(), api.connect()
    first.send(said)
    if first.responses():  # it has asked since the others came
        first, second = second, first
    fourth = api.connect()
    assert [line.closing for line in (first, second, third, fourth)] == [True, False, False, False]
    fourth.send(render("GET", "/healthz"))
    assert fourth.responses()[0].status == 200
    assert refused(api) == 1
    for line in (first, second, third, fourth):
        line.lose()
    assert (len(api.site.waiting), api.site.intake.held) == (0, 0)
    assert not any(api.connect().aborted for _ in range(3))


def trickle(api: Api, line: Line, data: bytes) -> None:
    for byte in data:
        line.send(bytes([byte]))
        api.clock.advance(1.0)


def test_request_that_trickles_is_cut_however_often_bytes_come() -> None:
    api = Api(request_timeout=5.0)
    line = api.connect()
    line.send(b"POST /v1/publish HTTP/1.1\r\n")
    trickle(api, line, b"Host: a")
    (response,) = line.responses()
    assert (response.status, response.json()["status"]) == (408, 408)
    assert line.transport.disconnecting


def test_idle_connection_is_closed_without_a_word() -> None:
    api = Api(request_timeout=5.0)
    line = api.connect()
    api.clock.advance(5.0)
    assert line.transport.disconnecting
    assert line.transport.value() == b""


def test_time_of_a_request_begins_with_its_first_byte() -> None:
    api = Api(request_timeout=5.0)
    line = api.connect()
    request = render("GET", "/healthz")
    api.clock.advance(4.0)
    line.send(request[:10])
    api.clock.advance(4.0)
    line.send(request[10:])
    api.clock.advance(4.0)
    line.send(request[:10])
    api.clock.advance(4.0)
    line.send(request[10:])
    assert [response.status for response in line.responses()] == [200, 200]


def test_answer_that_is_too_late_is_503_and_the_publish_goes_on() -> None:
    api = Api(request_timeout=30.0)
    gate: Deferred[None] = Deferred()
    api.push.gates["news"] = gate
    line = api.connect()
    line.send(render("POST", "/v1/publish", PUBLISH))
    api.clock.advance(30.0)
    (response,) = line.responses()
    assert (response.status, response.json()["code"]) == (503, 1008)
    gate.callback(None)
    assert len(api.push.finished) == 1
    assert len(line.responses()) == 1


def test_client_that_goes_away_does_not_interrupt_its_publish() -> None:
    api = Api()
    gate: Deferred[None] = Deferred()
    api.push.gates["news"] = gate
    line = api.connect()
    line.send(render("POST", "/v1/publish", PUBLISH))
    line.lose()
    gate.callback(None)
    assert len(api.push.finished) == 1
    assert api.clock.getDelayedCalls() == []


class Log:
    """The failures that are logged while it is entered."""

    def __init__(self) -> None:
        self.failures: list[LogEvent] = []

    def __enter__(self) -> list[LogEvent]:
        globalLogPublisher.addObserver(self._note)
        return self.failures

    def __exit__(self, *exception: object) -> None:
        globalLogPublisher.removeObserver(self._note)

    def _note(self, event: LogEvent) -> None:
        if "log_failure" in event:
            self.failures.append(event)


def test_unexpected_exception_is_500_without_its_text_and_logged_once() -> None:
    api = Api()
    api.push.errors["news"] = RuntimeError("inner matter")
    with Log() as failures:
        response = api.publish(topic="news", payload="x")
    assert (response.status, response.headers["content-type"]) == (500, "application/problem+json")
    assert b"inner" not in response.body
    assert b"Traceback" not in response.body
    assert len(failures) == 1
    assert failures[0]["log_failure"].check(RuntimeError)


def test_failure_after_the_client_has_gone_is_logged_once() -> None:
    api = Api()
    gate: Deferred[None] = Deferred()
    api.push.gates["news"] = gate
    api.push.errors["news"] = RuntimeError("inner matter")
    line = api.connect()
    with Log() as failures:
        line.send(render("POST", "/v1/publish", PUBLISH))
        line.lose()
        gate.callback(None)
    assert len(failures) == 1


class Broken(Resource):
    """Fails before (or after) it has begun to answer."""

    isLeaf = True

    def __init__(self, begun: bytes) -> None:
        super().__init__()
        self.begun = begun

    def render(self, request: Request) -> bytes:
        if self.begun:
            request.write(self.begun)
        raise RuntimeError("inner matter")


def test_failure_below_the_api_is_a_problem_too() -> None:
    api = Api()
    api.site.resource = Broken(b"")
    with Log() as failures:
        response = api.request("GET", "/healthz")
    assert (response.status, response.headers["content-type"]) == (500, "application/problem+json")
    assert b"inner" not in response.body
    assert len(failures) == 1


def test_failure_in_the_middle_of_an_answer_cuts_it_off() -> None:
    api = Api()
    api.site.resource = Broken(b"half")
    line = api.connect()
    with Log() as failures:
        line.send(render("GET", "/healthz"))
    assert line.transport.disconnecting
    assert b"inner" not in line.transport.value()
    assert len(failures) == 1


def test_refused_client_that_also_runs_out_of_time_has_one_answer() -> None:
    api = Api(max_body=LIMIT, request_timeout=LINGER / 2)
    line = api.connect()
    line.send(render("POST", "/v1/publish", b"", Content_Length="1000000"))
    api.clock.advance(LINGER / 2)
    assert [response.status for response in line.responses()] == [413]
    assert line.transport.disconnecting


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v1/channels/%ff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /%c3%28 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_path_that_is_not_utf_8_is_400(request_bytes: bytes) -> None:
    line = Api().connect()
    with Log() as failures:
        line.send(request_bytes)
    (response,) = line.responses()
    assert (response.status, response.headers["content-type"]) == (400, "application/problem+json")
    assert failures == []


@pytest.mark.parametrize("host", ["bad host", "..", "x" * 300, "[::", "a:b:c", "\xff"])
def test_host_that_is_no_name_does_no_harm(host: str) -> None:
    with Log() as failures:
        line = Api().connect()
        line.send(b"GET /healthz HTTP/1.1\r\nHost: " + host.encode("latin-1") + b"\r\n\r\n")
    assert line.responses()[0].status == 200
    assert failures == []


NO_HTTP = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "one word": b"hello\r\n\r\n",
    "no colon": b"GET / HTTP/9.9\r\nX\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "line too long": b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    "no end of line": b"x" * 70_000,
    "too many headers": b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 5_000 + b"\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nX: \0\r\n\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "negative length": b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "length and chunks": b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no chunk": chunked("/v1/publish") + b"ZZ\r\n\r\n",
}


@pytest.mark.parametrize("data", NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_is_answered_with_a_problem_counted_and_closed(data: bytes) -> None:
    api = Api()
    line = api.connect()
    line.send(data)
    line.send(data)
    (response,) = line.responses()
    assert (response.status, response.headers["content-type"], response.json()["status"]) == (400, "application/problem+json", 400)
    assert line.transport.disconnecting
    assert api.registry.get_sample_value("streampush_rest_requests_total", {"status": "400"}) == 1


def test_what_is_no_http_behind_a_refusal_is_not_answered_again() -> None:
    line = Api().connect()
    line.send(chunked("/v1/publish", None) + b"ZZ\r\n\r\n")
    (response,) = line.responses()
    assert response.status == 401


def test_answers_name_no_server_and_are_not_to_be_kept() -> None:
    for path in ("/healthz", "/nowhere"):
        headers = Api().request("GET", path).headers
        assert "server" not in headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


def test_only_http_1_1_is_negotiated() -> None:
    assert Api().site.acceptableProtocols() == [b"http/1.1"]


def test_site_leaves_no_timer_of_its_own() -> None:
    api = Api()
    api.site.doStart()
    assert api.clock.getDelayedCalls() == []
    api.site.doStop()
