from __future__ import annotations

from twisted.internet.defer import Deferred

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.rest.api import BATCH_AT_ONCE
from tests.rest.support import Api, render


def message(channel: str, payload: str = "x") -> dict[str, str]:
    return {"channel": channel, "payload": payload}


def test_each_message_has_its_result_in_order() -> None:
    api = Api()
    api.push.errors["full"] = Refused(Code.QUOTA_EXCEEDED, "no room")
    messages = [message("news"), message("full"), {"topic": "news"}, "nonsense", message("news")]
    response = api.request("POST", "/v1/publish/batch", {"messages": messages})
    assert response.status == 200
    ok, full, without_payload, nonsense, last = response.json()["results"]
    assert ok["ok"]["channel"] == last["ok"]["channel"] == "news"
    assert (full["problem"]["code"], full["problem"]["status"]) == (3007, 507)
    assert without_payload["problem"]["field"] == "messages[2].payload"
    assert nonsense["problem"]["field"] == "messages[3]"


def test_each_message_may_have_its_idempotency_key_and_the_batch_has_none() -> None:
    api = Api()
    body = {"messages": [{**message("news"), "idempotency_key": "a"}]}
    assert api.request("POST", "/v1/publish/batch", body, Idempotency_Key="b").status == 400
    assert api.push.published == []
    assert api.request("POST", "/v1/publish/batch", body).status == 200
    assert [request.idempotency_key for _, request in api.push.published] == ["a"]


def test_messages_of_one_channel_keep_their_order_and_others_do_not_wait() -> None:
    api = Api()
    gate: Deferred[None] = Deferred()
    api.push.gates["slow"] = gate
    line = api.connect()
    messages = [message("slow", "1"), message("slow", "2"), message("fast", "3")]
    line.send(render("POST", "/v1/publish/batch", {"messages": messages}))
    assert [request.payload for _, request in api.push.published] == [b"1", b"3"]
    assert line.responses() == []
    del api.push.gates["slow"]
    gate.callback(None)
    assert [request.payload for request in api.push.finished] == [b"3", b"1", b"2"]
    (response,) = line.responses()
    assert [result["ok"]["channel"] for result in response.json()["results"]] == ["slow", "slow", "fast"]


def test_messages_of_one_channel_behind_the_first_go_to_the_store_together_but_not_all_of_a_large_batch() -> None:
    api = Api()
    gates: list[Deferred[None]] = [Deferred() for _ in range(3)]
    api.push.gates["news"] = gates[0]
    line = api.connect()
    payloads = [str(number) for number in range(BATCH_AT_ONCE + 2)]
    line.send(render("POST", "/v1/publish/batch", {"messages": [message("news", payload) for payload in payloads]}))
    for gate, behind, asked in zip(gates, (*gates[1:], None), (1, BATCH_AT_ONCE + 1, BATCH_AT_ONCE + 2), strict=True):
        assert [request.payload for _, request in api.push.published] == [payload.encode() for payload in payloads[:asked]]
        if behind is not None:
            api.push.gates["news"] = behind
        gate.callback(None)
    (response,) = line.responses()
    assert [result["ok"]["offset"] for result in response.json()["results"]] == list(range(1, len(payloads) + 1))


def test_batch_at_the_limit_is_taken_and_one_above_it_is_not() -> None:
    api = Api(max_batch=2)
    assert api.request("POST", "/v1/publish/batch", {"messages": [message("a")] * 2}).status == 200
    response = api.request("POST", "/v1/publish/batch", {"messages": [message("a")] * 3})
    assert (response.status, response.json()["field"]) == (413, "messages")
    assert len(api.push.published) == 2


def test_batch_without_messages_is_bad() -> None:
    api = Api()
    for body in ({}, {"messages": []}, {"messages": {}}, {"messages": [message("a")], "more": 1}):
        assert api.request("POST", "/v1/publish/batch", body).status == 400
    assert api.push.published == []


def test_failure_of_one_message_is_its_own() -> None:
    api = Api()
    api.push.errors["bad"] = RuntimeError("a bug")
    response = api.request("POST", "/v1/publish/batch", {"messages": [message("bad"), message("news")]})
    bad, good = response.json()["results"]
    assert bad["problem"]["status"] == 500
    assert "a bug" not in response.body.decode()
    assert good["ok"]["channel"] == "news"


def test_batch_that_nobody_waits_for_stops_behind_the_message_under_way() -> None:
    api = Api(request_timeout=30.0)
    gate: Deferred[None] = Deferred()
    api.push.gates["slow"] = gate
    line = api.connect()
    line.send(render("POST", "/v1/publish/batch", {"messages": [message("slow", "1"), message("slow", "2")]}))
    api.clock.advance(30.0)
    assert line.responses()[0].status == 503
    gate.callback(None)
    assert [request.payload for request in api.push.finished] == [b"1"]
