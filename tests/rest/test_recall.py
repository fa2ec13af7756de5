from __future__ import annotations

from streampush.push.values import ChannelRules, Principal
from tests.rest.support import READER, Api


def test_recall_says_what_the_message_was_and_where_the_notice_is() -> None:
    api = Api()
    response = api.request("DELETE", "/v1/messages/M1")
    assert response.status == 200
    assert response.json() == {
        "recalled": True,
        "message_id": "M1",
        "channel": "news",
        "was": "stored",
        "epoch": "E1",
        "notice_offset": 7,
        "notice_id": "M2",
        "connections": 3,
    }
    assert api.push.recalled == [(Principal("key", "backend", may_publish=ChannelRules(("news", "device:*"))), "M1")]


def test_message_that_is_not_known_is_404_with_its_code() -> None:
    response = Api().request("DELETE", "/v1/messages/nothing")
    assert (response.status, response.json()["code"]) == (404, 3006)


def test_recall_needs_the_right_to_publish() -> None:
    api = Api()
    assert api.request("DELETE", "/v1/messages/M1", key=READER).status == 403
    assert api.request("DELETE", "/v1/messages/M1", key=None).status == 401
    assert api.push.recalled == []
