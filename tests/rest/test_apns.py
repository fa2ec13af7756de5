"""How pushes to Apple stand, over HTTP."""

from __future__ import annotations

from tests.rest.support import READER, Api
from tests.rest.test_openapi import SCHEMAS, check


def test_without_an_app_there_is_nothing_to_tell() -> None:
    response = Api().request("GET", "/v1/apns", key=READER)
    assert (response.status, response.json()) == (200, {"apps": [], "routes": []})
    check(response.json(), SCHEMAS["ApnsStatus"])


def test_a_key_is_needed() -> None:
    assert Api().request("GET", "/v1/apns", key=None).status == 401
