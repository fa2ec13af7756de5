"""The description and the code say the same."""

from __future__ import annotations

import dataclasses
import json
import re
from importlib.resources import files
from typing import Any

import pytest

from streampush.apns.push import PushType
from streampush.config import INTERRUPTION_LEVELS
from streampush.observe.rest_figures import REST_STATUSES
from streampush.protocol.codes import Code
from streampush.protocol.terms import AppState, Priority
from streampush.push.alerts import MAX_BADGE, MAX_FALLBACK_AFTER_MS
from streampush.push.direct import DirectResult
from streampush.push.explain import MAX_LETTERS
from streampush.push.live import LiveResult
from streampush.push.progress import ORDER, MessageState
from streampush.push.publish_rules import MAX_IDEMPOTENCY_KEY_BYTES
from streampush.push.receipts import MAX_DEVICES
from streampush.push.values import ChannelCursor, DeviceStatus, Published, PushOutcome, PushResult, Recalled
from streampush.rest import fields
from streampush.rest.api import ROUTES
from streampush.rest.apple import BROADCAST_FIELDS, CHANNEL_FIELDS, PUSH_FIELDS
from streampush.rest.problems import STATUS_OF, Problem
from tests.rest.support import Api

DOCUMENT: dict[str, Any] = json.loads(files("streampush.rest").joinpath("openapi.json").read_text("utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]


def operation(route: Any) -> dict[str, Any]:
    path = re.sub(r"<\w+:(\w+)>", r"{\1}", route.path)
    return DOCUMENT["paths"][path][route.method.lower()]


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    return SCHEMAS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def check(value: Any, schema: dict[str, Any]) -> None:
    """A small validator for what the document uses: type, properties, required, additionalProperties, items, enum, oneOf."""
    schema = resolve(schema)
    for choice in [schema["oneOf"]] if "oneOf" in schema else []:
        assert any(set(value) == set(resolve(one)["properties"]) for one in choice)
        check(value, next(one for one in choice if set(value) == set(resolve(one)["properties"])))
        return
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "boolean": bool,
        "number": (int, float),
        "null": type(None),
    }
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    assert not names or any(isinstance(value, kinds[name]) for name in names), (value, names)
    if "enum" in schema:
        assert value in schema["enum"]
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value)
        if schema.get("additionalProperties") is False:
            assert set(value) <= set(schema["properties"])
        for name, item in value.items():
            check(item, schema.get("properties", {}).get(name, {}))
    if isinstance(value, list):
        for item in value:
            check(item, schema.get("items", {}))


def test_paths_and_methods_are_those_of_the_code() -> None:
    described = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert described == {(route.method, re.sub(r"<\w+:(\w+)>", r"{\1}", route.path)) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_operation_scope_and_parameters_are_those_of_the_code(route: Any) -> None:
    described = operation(route)
    assert described["operationId"] == route.operation
    assert described["security"] == ([{"key": [route.scope]}] if route.scope else [])
    names: dict[str, list[str]] = {"path": [], "query": [], "header": []}
    for parameter in described.get("parameters", []):
        names[parameter["in"]].append(parameter["name"])
    del names["header"]
    assert names == {"path": re.findall(r"<\w+:(\w+)>", route.path), "query": list(route.query)}


def test_fields_of_a_message_are_those_that_are_read() -> None:
    message = SCHEMAS["Message"]
    assert set(message["properties"]) == set(fields.PUBLISH_FIELDS)
    assert message["additionalProperties"] is False
    assert message["properties"]["durability"]["enum"] == list(fields.DURABILITIES)
    assert message["properties"]["priority"]["enum"] == list(fields.PRIORITIES)
    assert message["properties"]["idempotency_key"]["maxLength"] == MAX_IDEMPOTENCY_KEY_BYTES
    assert {message["properties"][name]["maximum"] for name in ("expires_at", "deliver_at", "version")} == {fields.MAX_INTEGER}
    addresses, payloads = ({one["required"][0] for one in group["oneOf"]} for group in message["allOf"])
    assert (addresses, payloads) == (set(fields.ADDRESSES), set(fields.PAYLOADS))
    assert SCHEMAS["Disconnect"]["properties"]["detail"]["maxLength"] == fields.MAX_DETAIL


def test_fields_of_an_alert_are_those_that_are_read() -> None:
    for name, known in (("Alert", fields.ALERT_FIELDS), ("Background", fields.BACKGROUND_FIELDS)):
        assert set(SCHEMAS[name]["properties"]) == set(known)
        assert SCHEMAS[name]["properties"]["fallback_after"]["maximum"] == MAX_FALLBACK_AFTER_MS / 1000
    alert = SCHEMAS["Alert"]["properties"]
    assert alert["interruption_level"]["enum"] == list(INTERRUPTION_LEVELS)
    assert alert["badge"]["maximum"] == MAX_BADGE


@pytest.mark.parametrize(("name", "value"), [("Published", Published), ("Device", DeviceStatus), ("Cursor", ChannelCursor)])
def test_answers_have_the_fields_of_the_values(name: str, value: type) -> None:
    shown = {"round_trip": "round_trip_ms", "deliver_at_ms": "deliver_at"}
    names = [shown.get(field.name, field.name) for field in dataclasses.fields(value)]
    assert list(SCHEMAS[name]["properties"]) == names
    assert SCHEMAS[name]["required"] == names


def test_answer_to_a_recall_has_the_fields_of_the_value() -> None:
    assert list(SCHEMAS["Recalled"]["properties"]) == ["recalled", *(field.name for field in dataclasses.fields(Recalled))]


def test_states_of_an_application_are_those_of_the_protocol() -> None:
    assert SCHEMAS["Device"]["properties"]["state"]["enum"] == [state.name for state in AppState]


def test_milestones_and_states_of_a_message_are_those_of_the_code() -> None:
    names = [milestone.name.lower() for milestone in ORDER]
    assert list(SCHEMAS["Milestones"]["properties"]) == names
    assert SCHEMAS["MilestoneEvent"]["properties"]["milestone"]["enum"] == names
    assert SCHEMAS["MessageStatus"]["properties"]["state"]["enum"] == [state.value for state in MessageState]
    assert SCHEMAS["MessageStatus"]["properties"]["priority"]["enum"] == [priority.name for priority in Priority]
    assert SCHEMAS["MessageStatus"]["properties"]["devices"]["maxItems"] == MAX_DEVICES
    assert SCHEMAS["MessageStatus"]["properties"]["durability"]["enum"] == list(fields.DURABILITIES)


def test_outcomes_of_pushes_are_those_of_the_code() -> None:
    outcomes = [outcome.value for outcome in PushOutcome]
    assert SCHEMAS["PushResult"]["properties"]["outcome"]["enum"] == outcomes
    assert list(SCHEMAS["PushCounts"]["properties"]) == outcomes
    assert set(SCHEMAS["PushResult"]["required"]) == {field.name for field in dataclasses.fields(PushResult)}
    assert SCHEMAS["PushRecord"]["properties"]["outcome"] == SCHEMAS["PushResult"]["properties"]["outcome"]


def test_fields_of_a_push_without_a_message_are_those_of_the_code() -> None:
    assert tuple(SCHEMAS["DirectPush"]["properties"]) == PUSH_FIELDS
    assert SCHEMAS["DirectPush"]["properties"]["push_type"]["enum"] == [push_type.value for push_type in PushType]
    names = [field.name for field in dataclasses.fields(DirectResult)]
    assert list(SCHEMAS["DirectResult"]["properties"]) == SCHEMAS["DirectResult"]["required"] == names


def test_fields_about_channels_for_live_activities_are_those_of_the_code() -> None:
    assert tuple(SCHEMAS["LiveChannel"]["properties"]) == CHANNEL_FIELDS
    assert tuple(SCHEMAS["LiveBroadcast"]["properties"]) == BROADCAST_FIELDS
    names = [field.name for field in dataclasses.fields(LiveResult)]
    assert list(SCHEMAS["LiveResult"]["properties"]) == SCHEMAS["LiveResult"]["required"] == names


def test_the_bound_of_counted_dead_letters_is_that_of_the_code() -> None:
    description = SCHEMAS["Facts"]["properties"]["dead_letters"]["description"]
    assert description.startswith(f"At most {MAX_LETTERS} ")


def test_problem_has_the_members_that_are_described() -> None:
    problem = Problem(429, "d", code=Code.MESSAGE_RATE_EXCEEDED, field="f", retry_after=1.0).document()
    assert set(problem) == set(SCHEMAS["Problem"]["properties"])
    check(Problem(404, "d").document(), SCHEMAS["Problem"])


def test_every_status_of_a_refused_publish_is_described() -> None:
    assert {str(status) for status in STATUS_OF.values()} <= set(operation(ROUTES[0])["responses"])


CALLS = [
    ("publish", "/v1/publish", {"topic": "news", "payload": "x"}),
    ("publish_batch", "/v1/publish/batch", {"messages": [{"topic": "news", "payload": "x"}, {}]}),
    ("recall", "/v1/messages/M1", None),
    ("describe_device", "/v1/devices/phone-1", None),
    ("disconnect_device", "/v1/devices/phone-1/disconnect", None),
    ("describe_channel", "/v1/channels/news", None),
    ("describe_message", "/v1/messages/M1", None),
    ("push", "/v1/apns/push", {"device_token": "a1", "background": True}),
    ("describe_push", "/v1/apns/pushes/A1", None),
    ("create_live_channel", "/v1/apns/channels", {"keep_latest": True}),
    ("list_live_channels", "/v1/apns/channels", None),
    ("describe_live_channel", "/v1/apns/channels/a/b==", None),
    ("delete_live_channel", "/v1/apns/channels/a/b==", None),
    ("broadcast", "/v1/apns/broadcasts", {"channel": "a/b==", "payload": {}}),
    ("openapi", "/openapi.json", None),
    ("alive", "/healthz", None),
    ("ready", "/readyz", None),
]


@pytest.mark.parametrize(("name", "path", "body"), CALLS, ids=[row[0] for row in CALLS])
def test_real_answer_fits_its_description(name: str, path: str, body: object) -> None:
    route = next(route for route in ROUTES if route.operation == name)
    response = Api().request(route.method, path, body)
    assert response.status == 200
    (content,) = operation(route)["responses"]["200"]["content"].items()
    assert response.headers["content-type"] == content[0]
    check(response.json(), content[1]["schema"])


def test_every_reference_leads_somewhere() -> None:
    for reference in set(re.findall(r'"#/([^"]+)"', json.dumps(DOCUMENT))):
        target: Any = DOCUMENT
        for part in reference.split("/"):
            target = target[part]
        assert target


def test_document_is_served_without_a_key() -> None:
    assert Api().request("GET", "/openapi.json", key=None).json() == DOCUMENT


def test_every_status_that_the_document_and_the_table_of_codes_name_has_a_counter() -> None:
    operations = [one for path in DOCUMENT["paths"].values() for one in path.values() if isinstance(one, dict)]
    documented = {status for one in operations for status in one.get("responses", {})}
    assert documented | set(map(str, STATUS_OF.values())) <= set(REST_STATUSES)
