"""The HTTP API of devices: what they are, what they follow, what waits for them, what they did not take, who is connected."""

from __future__ import annotations

from typing import Any

from streampush.protocol.terms import is_id
from streampush.push.backlog import MAX_ENTRIES
from streampush.push.dead_letters import MAX_LETTERS, LetterPlace
from streampush.push.devices import DeviceChange
from streampush.rest import device_documents, documents, fields
from streampush.rest.calls import Call, Operation, Route
from streampush.rest.ports import PushApi
from streampush.rest.problems import Answer, Problem, json_answer
from streampush.rest.queries import flag, number

_DEVICE = "/v1/devices/<string:id>"

ROUTES = (
    Route("GET", _DEVICE, "describe_device", "read"),
    Route("PUT", _DEVICE, "change_device", "devices"),
    Route("DELETE", _DEVICE, "forget_device", "devices"),
    Route("POST", f"{_DEVICE}/disconnect", "disconnect_device", "disconnect"),
    Route("GET", f"{_DEVICE}/push-token", "show_push_token", "read"),
    Route("PUT", f"{_DEVICE}/push-token", "register_push_token", "devices"),
    Route("DELETE", f"{_DEVICE}/push-token", "remove_push_token", "devices"),
    Route("GET", f"{_DEVICE}/subscriptions", "list_subscriptions", "read"),
    Route("PUT", f"{_DEVICE}/subscriptions/<channel:channel>", "add_subscription", "devices"),
    Route("DELETE", f"{_DEVICE}/subscriptions/<channel:channel>", "remove_subscription", "devices"),
    Route("GET", f"{_DEVICE}/backlog", "show_backlog", "read", ("channel", "after", "limit")),
    Route("GET", f"{_DEVICE}/explain", "explain_device", "read"),
    Route("GET", f"{_DEVICE}/dead-letters", "list_dead_letters", "read", ("behind", "limit")),
    Route("GET", f"{_DEVICE}/dead-letters/<string:message_id>", "show_dead_letter", "read", ("payload",)),
    Route("DELETE", f"{_DEVICE}/dead-letters/<string:message_id>", "drop_dead_letter", "devices"),
    Route("POST", f"{_DEVICE}/dead-letters/<string:message_id>/replay", "replay_dead_letter", "devices"),
    Route("GET", "/v1/presence/users/<string:id>", "user_presence", "read", ("limit",)),
    Route("GET", "/v1/presence/channels/<channel:name>", "channel_presence", "read", ("limit",)),
)

DEFAULT_LIMIT = 100
"""Rows of a page, if the caller names no limit."""
MAX_PRESENT = 1_000
"""Devices listed by one question for presence."""
MAX_OFFSET = 10**18 - 1


class DeviceOperations:
    """One instance serves all requests. The methods raise Problem and Refused."""

    def __init__(self, service: PushApi) -> None:
        self._service = service

    def operations(self) -> dict[str, Operation]:
        """The methods by the names of their routes."""
        return {
            "describe_device": self._describe,
            "change_device": self._change,
            "forget_device": self._forget,
            "disconnect_device": self._disconnect,
            "show_push_token": self._push_token,
            "register_push_token": self._register_token,
            "remove_push_token": self._remove_token,
            "list_subscriptions": self._subscriptions,
            "add_subscription": self._subscribe,
            "remove_subscription": self._unsubscribe,
            "show_backlog": self._backlog,
            "explain_device": self._explain,
            "list_dead_letters": self._dead_letters,
            "show_dead_letter": self._dead_letter,
            "drop_dead_letter": self._drop_dead_letter,
            "replay_dead_letter": self._replay,
            "user_presence": self._user_presence,
            "channel_presence": self._channel_presence,
        }

    # --------------------------------------------------------------------------------------------------------- the devices

    async def _describe(self, call: Call) -> Answer:
        return json_answer(documents.device(await self._service.describe_device(call.arguments["id"])))

    async def _change(self, call: Call) -> Answer:
        device_id = call.arguments["id"]
        if not is_id(device_id):
            raise fields.bad("id", "must be 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ -")
        made = await self._service.devices.change(device_id, _change(fields.parse_object(call.body) if call.body else {}))
        return json_answer(documents.device(await self._service.describe_device(device_id)), 201 if made else 200)

    async def _forget(self, call: Call) -> Answer:
        return json_answer({"forgotten": await self._service.devices.forget(call.arguments["id"])})

    async def _disconnect(self, call: Call) -> Answer:
        detail = fields.disconnect_detail(fields.parse_object(call.body) if call.body else {})
        return json_answer({"disconnected": await self._service.disconnect_device(call.arguments["id"], detail)})

    # ---------------------------------------------------------------------------------------------------------- push token

    async def _push_token(self, call: Call) -> Answer:
        token = await self._service.devices.push_token(call.arguments["id"])
        if token is None:
            raise Problem(404, "this device has no push token")
        return json_answer(device_documents.push_token(token))

    async def _register_token(self, call: Call) -> Answer:
        device_id = call.arguments["id"]
        wanted = fields.push_token(fields.parse_object(call.body))
        replaced = await self._service.devices.register_token(device_id, wanted)
        token = await self._service.devices.push_token(device_id)
        if token is None or token.token != wanted.token:
            raise Problem(409, "registered, and changed or taken away since: another device, or another request, came later")
        return json_answer(device_documents.push_token(token), 200 if replaced else 201)

    async def _remove_token(self, call: Call) -> Answer:
        return json_answer({"removed": await self._service.devices.register_token(call.arguments["id"], None)})

    # ------------------------------------------------------------------------------------------------------- subscriptions

    async def _subscriptions(self, call: Call) -> Answer:
        rows = await self._service.devices.subscriptions(call.arguments["id"])
        return json_answer({"subscriptions": [device_documents.subscription(row) for row in rows]})

    async def _subscribe(self, call: Call) -> Answer:
        added = await self._service.subscribe_device(call.arguments["id"], call.arguments["channel"])
        return json_answer({"added": added}, 201 if added else 200)

    async def _unsubscribe(self, call: Call) -> Answer:
        return json_answer({"removed": await self._service.unsubscribe_device(call.arguments["id"], call.arguments["channel"])})

    # ------------------------------------------------------------------------------------------------------------- backlog

    async def _backlog(self, call: Call) -> Answer:
        query = call.query
        device_id = call.arguments["id"]
        if "channel" not in query:
            for name in query:
                raise fields.bad(name, "needs the parameter channel")
            rows = await self._service.backlog.channels(device_id)
            return json_answer({"device_id": device_id, "channels": [device_documents.channel_backlog(row) for row in rows]})
        after = number(query, "after", 0, 0, MAX_OFFSET)
        limit = number(query, "limit", DEFAULT_LIMIT, 1, MAX_ENTRIES)
        page = await self._service.backlog.entries(device_id, query["channel"], after, limit)
        return json_answer({"device_id": device_id} | device_documents.backlog_page(page))

    async def _explain(self, call: Call) -> Answer:
        return json_answer(device_documents.explanation(await self._service.explainer.explain(call.arguments["id"])))

    # -------------------------------------------------------------------------------------------------------- dead letters

    async def _dead_letters(self, call: Call) -> Answer:
        query = call.query
        limit = number(query, "limit", min(DEFAULT_LIMIT, MAX_LETTERS), 1, MAX_LETTERS)
        page = await self._service.dead_letters.page(call.arguments["id"], _place(query.get("behind")), limit)
        following = page.following and f"{page.following.at_ms}.{page.following.message_id}"
        return json_answer({"dead_letters": [device_documents.dead_letter(letter) for letter in page.letters], "next": following})

    async def _dead_letter(self, call: Call) -> Answer:
        with_payload = flag(call.query, "payload")
        if with_payload:
            call.caller.require("devices")
        letter = await self._service.dead_letters.letter(call.arguments["id"], call.arguments["message_id"])
        return json_answer(device_documents.dead_letter(letter, with_payload=with_payload))

    async def _drop_dead_letter(self, call: Call) -> Answer:
        return json_answer({"dropped": await self._service.dead_letters.drop(call.arguments["id"], call.arguments["message_id"])})

    async def _replay(self, call: Call) -> Answer:
        published = await self._service.dead_letters.replay(call.arguments["id"], call.arguments["message_id"])
        return json_answer(documents.published(published))

    # ------------------------------------------------------------------------------------------------------------ presence

    async def _user_presence(self, call: Call) -> Answer:
        limit = number(call.query, "limit", DEFAULT_LIMIT, 1, MAX_PRESENT)
        user_id = call.arguments["id"]
        sessions = await self._service.devices.user_presence(user_id, limit)
        return json_answer({"user_id": user_id, "sessions": [device_documents.session(session) for session in sessions]})

    async def _channel_presence(self, call: Call) -> Answer:
        limit = number(call.query, "limit", DEFAULT_LIMIT, 1, MAX_PRESENT)
        return json_answer(
            device_documents.channel_presence(await self._service.devices.channel_presence(call.arguments["name"], limit))
        )


def _change(body: dict[str, Any]) -> DeviceChange:
    fields.only(body, ("user_id", "attributes"))
    user_id = fields.text(body["user_id"], "user_id") if "user_id" in body else None
    attributes = None
    if "attributes" in body:
        value = body["attributes"]
        if not isinstance(value, dict):
            raise fields.bad("attributes", "must be an object of strings")
        attributes = {fields.text(name, "attributes"): fields.text(content, "attributes") for name, content in value.items()}
    return DeviceChange(user_id, attributes)


def _place(text: str | None) -> LetterPlace | None:
    if text is None:
        return None
    at_ms, dot, message_id = text.partition(".")
    if not (dot and message_id and at_ms.isascii() and at_ms.isdigit() and len(at_ms) <= 15):
        raise fields.bad("behind", "must be the `next` of the page before")
    return LetterPlace(int(at_ms), message_id)
