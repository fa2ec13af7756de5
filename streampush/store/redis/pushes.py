"""How pushes ended, as scripts take it: `lua/lib/pushes.lua`; and as it lies in receipts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streampush.push.values import PushOutcome, PushRecord, PushResult


def packed(records: Sequence[PushRecord]) -> list[list[Any]]:
    """Arguments for pushes.record."""
    return [[one.message_id, one.device_id, _packed(one.result), one.lease, one.count] for one in records]


def _packed(result: PushResult) -> list[Any]:
    return [result.at_ms, result.outcome.value, result.reason, result.apns_id]


def result(push: Sequence[Any]) -> PushResult:
    """From the push of a row."""
    at_ms, outcome, reason, apns_id = push
    return PushResult(at_ms, PushOutcome(outcome.decode()), reason.decode(), apns_id.decode())
