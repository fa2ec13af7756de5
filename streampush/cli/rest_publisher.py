"""Publishing over the REST API."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from typing import Any

from streampush.cli.exits import BadCredentials, Failure
from streampush.cli.outgoing import Outgoing, PublishRefused, Sent
from streampush.cli.rest_client import REPLY_TIMEOUT, RestClient
from streampush.protocol.codes import CODES, Advice, Code
from streampush.push.values import Alert


class RestPublisher:
    """Publishes with a key over connections that are kept open.

    `ca_pem`: the CA that signed the server's certificate, for https. `reactor`: the running one.
    """

    answer_timeout = REPLY_TIMEOUT

    def __init__(self, reactor: Any, url: str, key: str, ca_pem: bytes) -> None:
        self._client = RestClient(reactor, url, key, ca_pem)

    async def publish(self, message: Outgoing) -> Sent:
        status, reply = await self._client.ask("POST", "/v1/publish", _fields(message))
        if status != 200:
            raise refusal(status, reply)
        try:
            return _sent(reply)
        except (KeyError, TypeError, ValueError) as error:
            raise Failure(f"{self._client.url} answers like no streampush server") from error

    async def close(self) -> None:
        await self._client.close()


def _fields(message: Outgoing) -> dict[str, Any]:
    """The body of the request: only what is asked for."""
    wishes: dict[str, Any] = {
        "content_type": message.content_type,
        "headers": dict(message.headers),
        "ttl": message.ttl,
        "expires_at": message.expires_at_ms,
        "deliver_at": message.deliver_at_ms,
        "priority": message.priority.name if message.priority else "",
        "collapse_key": message.collapse_key,
        "version": message.version,
        "want_receipt": message.want_receipt,
        "clear_on_processed": message.clear_on_processed,
        "idempotency_key": message.idempotency_key,
    }
    needed = {"channel": message.channel, "payload_base64": base64.b64encode(message.payload).decode()}
    return needed | {name: value for name, value in wishes.items() if value} | _alert(message.alert)


def _alert(alert: Alert | None) -> dict[str, Any]:
    """The field of the request that holds the alert, with what it says: `badge` 0 says something."""
    if alert is None:
        return {}
    said = {name: value for name, value in asdict(alert).items() if value is not None and value is not False and value != ""}
    after_ms = said.pop("fallback_after_ms")
    if after_ms:
        said["fallback_after"] = after_ms / 1000
    if "custom" in said:
        said["custom"] = json.loads(said["custom"])
    return {"background" if said.pop("background", False) else "alert": said}


def _sent(reply: dict[str, Any]) -> Sent:
    """The answer to a publish. Raises KeyError, TypeError or ValueError if it is none."""
    return Sent(
        str(reply["message_id"]),
        str(reply["channel"]),
        int(reply["offset"]),
        int(reply["connections"]),
        bool(reply.get("duplicate")),
        bool(reply.get("superseded")),
        int(reply.get("deliver_at", 0)),
        str(reply.get("epoch", "")),
        str(reply.get("durability", "")),
    )


def refusal(status: int, reply: dict[str, Any]) -> Exception:
    """The exception for an answer that is no success: a problem of RFC 9457 with our code, if the server wrote it."""
    detail = str(reply.get("detail") or reply.get("title") or f"HTTP status {status}")
    if status == 401:
        return BadCredentials(f"the server does not know the REST key: {detail}")
    number = reply.get("code")
    if not isinstance(number, int):
        return Failure(f"the server answers {status}: {detail}")
    advice = CODES[Code(number)].advice if number in CODES else Advice.UNSPECIFIED
    wait = reply.get("retry_after", 0)
    return PublishRefused(number, advice, detail, float(wait) if isinstance(wait, (int, float)) else 0.0)
