"""The HTTP API of Apple's pushes: how they stand, one without a message, what became of one, and channels for Live Activities."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from streampush.push.direct import BadDirectPush, DirectPush, DirectResult, NoApp
from streampush.push.live import LiveAction, LiveRequest, LiveResult
from streampush.push.values import Alert
from streampush.rest import documents, fields
from streampush.rest.calls import Call, Operation, Route
from streampush.rest.ports import ApnsApi, PushApi
from streampush.rest.problems import Answer, Problem, json_answer

ROUTES = (
    Route("GET", "/v1/apns", "describe_apns", "read"),
    Route("POST", "/v1/apns/push", "push", "push"),
    Route("GET", "/v1/apns/pushes/<string:apns_id>", "describe_push", "read"),
    Route("POST", "/v1/apns/channels", "create_live_channel", "push"),
    Route("GET", "/v1/apns/channels", "list_live_channels", "push", ("app",)),
    Route("GET", "/v1/apns/channels/<channel:channel>", "describe_live_channel", "push", ("app",)),
    Route("DELETE", "/v1/apns/channels/<channel:channel>", "delete_live_channel", "push", ("app",)),
    Route("POST", "/v1/apns/broadcasts", "broadcast", "push"),
)

CONTENTS = ("alert", "background", "payload")
PUSH_FIELDS = ("app", "device_token", *CONTENTS, "push_type", "topic", "priority", "ttl", "collapse_id", "apns_id")
CHANNEL_FIELDS = ("app", "keep_latest")
BROADCAST_FIELDS = ("app", "channel", "payload", "priority", "ttl", "request_id")
_WITH_MESSAGE = ("fallback_after", "only_when_away")
"""Of an alert: says when a message falls back, and here is none."""

PUSH_TIMEOUT = 15.0
"""Seconds for one push, with its repeats; less if a request may take less than twice of it, so that the outcome is the answer."""


class AppleOperations:
    """One instance serves all requests. The methods raise Problem and Refused."""

    def __init__(self, service: PushApi, apns: ApnsApi, request_timeout: float) -> None:
        self._service = service
        self._apns = apns
        self._timeout = min(PUSH_TIMEOUT, request_timeout / 2)

    def operations(self) -> dict[str, Operation]:
        """The methods by the names of their routes."""
        return {
            "describe_apns": self._describe,
            "push": self._push,
            "describe_push": self._became,
            "create_live_channel": self._create_channel,
            "list_live_channels": partial(self._of_channel, LiveAction.LIST),
            "describe_live_channel": partial(self._of_channel, LiveAction.READ),
            "delete_live_channel": partial(self._of_channel, LiveAction.DELETE),
            "broadcast": self._broadcast,
        }

    async def _describe(self, call: Call) -> Answer:
        return json_answer(dict(self._apns.document()))

    async def _push(self, call: Call) -> Answer:
        asked = direct_push(fields.parse_object(call.body))
        return await self._charged(call, lambda: self._apns.push(asked, self._timeout))

    async def _create_channel(self, call: Call) -> Answer:
        given = fields.parse_object(call.body)
        fields.only(given, CHANNEL_FIELDS)
        app = fields.text(given.get("app", ""), "app")
        return await self._live(call, LiveRequest(LiveAction.CREATE, app, keep_latest=fields.flag(given, "keep_latest")))

    async def _of_channel(self, action: LiveAction, call: Call) -> Answer:
        return await self._live(call, LiveRequest(action, call.query.get("app", ""), call.arguments.get("channel", "")))

    async def _broadcast(self, call: Call) -> Answer:
        return await self._live(call, broadcast(fields.parse_object(call.body)))

    async def _live(self, call: Call, asked: LiveRequest) -> Answer:
        return await self._charged(call, lambda: self._apns.ask_live(asked, self._timeout))

    async def _charged(self, call: Call, work: Callable[[], Awaitable[DirectResult | LiveResult]]) -> Answer:
        """Asks Apple for something; it counts as a message of the publisher."""
        await self._service.charge(call.principal)
        try:
            return json_answer(asdict(await work()))
        except BadDirectPush as error:
            raise fields.bad(error.field, error.problem) from error
        except NoApp as error:
            raise Problem(404 if error.configured else 409, str(error), field="app") from error

    async def _became(self, call: Call) -> Answer:
        return json_answer(documents.push_record(await self._service.receipts.push(call.arguments["apns_id"])))


def direct_push(given: Mapping[str, Any]) -> DirectPush:
    """The fields of a push without a message. Raises Problem 400; never shows the device token."""
    fields.only(given, PUSH_FIELDS)
    if "device_token" not in given:
        raise fields.bad("device_token", "is missing")
    if sum(name in given for name in CONTENTS) != 1:
        raise fields.bad("payload", f"give one of {', '.join(CONTENTS)}")
    if "push_type" in given and "payload" not in given:
        raise fields.bad("push_type", "goes with payload; alert and background are push types of their own")
    texts = {name: fields.text(given.get(name, ""), name) for name in ("push_type", "topic", "collapse_id", "apns_id")}
    return DirectPush(
        fields.text(given.get("app", ""), "app"),
        fields.text(given["device_token"], "device_token"),
        _alert(given),
        fields.json_object(given["payload"], "payload") if "payload" in given else "",
        texts["push_type"],
        texts["topic"],
        fields.integer(given, "priority", "", "a priority", least=1),
        fields.seconds(given["ttl"], "ttl") if "ttl" in given else None,
        texts["collapse_id"],
        texts["apns_id"],
    )


def broadcast(given: Mapping[str, Any]) -> LiveRequest:
    """The fields of a broadcast. Raises Problem 400."""
    fields.only(given, BROADCAST_FIELDS)
    for name in ("channel", "payload"):
        if name not in given:
            raise fields.bad(name, "is missing")
    return LiveRequest(
        LiveAction.PUBLISH,
        fields.text(given.get("app", ""), "app"),
        fields.text(given["channel"], "channel"),
        payload=fields.json_object(given["payload"], "payload"),
        ttl=fields.seconds(given["ttl"], "ttl") if "ttl" in given else 0.0,
        priority=fields.integer(given, "priority", "", "a priority", least=1),
        request_id=fields.text(given.get("request_id", ""), "request_id"),
    )


def _alert(given: Mapping[str, Any]) -> Alert | None:
    for content in CONTENTS[:2]:
        part = given.get(content)
        for name in _WITH_MESSAGE:
            if isinstance(part, dict) and name in part:
                raise fields.bad(f"{content}.{name}", "is for a message's alert; this push goes out at once")
    alert = fields.alert(given, "")
    if alert is None and "background" in given:
        raise fields.bad("background", "must be true or an object, or left out")
    return alert
