"""From Apple's answer, as HTTP, to an outcome. Nothing in it is trusted: it may come from anybody who answers in Apple's place."""

from __future__ import annotations

import json
import re

from streampush.apns.outcome import Delivered, Outcome, Rejected, Unknown, Why

MAX_BODY = 4096
"""Bytes of an answer's body that are looked at. Apple's are below 100."""

MAX_TIMESTAMP_MS = 1 << 53
"""Unix milliseconds, in the year 287396: what a number in JSON holds exactly."""

_REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


def read_answer(
    status: int, body: bytes = b"", *, apns_id: str = "", unique_id: str = "", retry_after: float | None = None
) -> Outcome:
    """The outcome of an answer that is complete. Raises nothing.

    `retry_after`: seconds, as `retry.read_retry_after` reads the header. A reason is passed on only if it looks like one of
    Apple's words, so that it can stand in a log and on a metric; an id likewise.
    """
    if apns_id and not _ID.fullmatch(apns_id):
        apns_id = ""
    if status == 200:
        return Delivered(apns_id, unique_id if unique_id and _ID.fullmatch(unique_id) else "")
    if not 300 <= status <= 599:  # of the others none means that a push was taken, or not
        return Unknown(Why.BAD_ANSWER)
    reason, timestamp_ms = read_reason(body)
    return Rejected(status, reason, timestamp_ms if status == 410 else None, apns_id, retry_after)


def read_reason(body: bytes) -> tuple[str, int | None]:
    """Reason and timestamp of Apple's JSON, also as a GOAWAY carries it; "" and None for what is not there or makes no sense."""
    if not body or len(body) > MAX_BODY:
        return "", None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", None
    if not isinstance(document, dict):
        return "", None
    reason, timestamp = document.get("reason"), document.get("timestamp")
    if not isinstance(reason, str) or not _REASON.fullmatch(reason):
        reason = ""
    if type(timestamp) is not int or not 0 <= timestamp <= MAX_TIMESTAMP_MS:
        timestamp = None
    return reason, timestamp
