"""How what a store keeps of publications and devices is packed into one value: headers as text, wishes as bits."""

from __future__ import annotations

import json
from collections.abc import Mapping

from streampush.push.values import NO_HEADERS, Draft

WANTS_RECEIPT, CLEAR_ON_PROCESSED, FREED = 1, 2, 4
"""Bits of an entry's flags. FREED: payload and headers are gone."""


def pack_headers(headers: Mapping[str, str]) -> str:
    """A JSON object; empty for none."""
    return json.dumps(dict(headers), ensure_ascii=False, separators=(",", ":")) if headers else ""


def unpack_headers(text: str | bytes) -> Mapping[str, str]:
    """What `pack_headers` was given."""
    return json.loads(text) if text else NO_HEADERS


def pack_flags(draft: Draft) -> int:
    """An entry's flags when it is new."""
    return (WANTS_RECEIPT if draft.want_receipt else 0) | (CLEAR_ON_PROCESSED if draft.clear_on_processed else 0)
