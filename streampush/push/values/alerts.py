"""What is shown, or wakes the app, on a device that a message does not reach over its connection."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Alert:
    """What goes to a device over its push service: docs/protocol.md section 5.6. Empty, None and 0: not said.

    `custom`: a JSON object as text, the app's own keys. `background`: wakes the app and shows nothing; then only `custom` is
    said. `fallback_after_ms`: for so long a device that is connected may stay silent, 0: as the server is configured;
    `only_when_away`: a device that is connected is waited for.
    """

    title: str = field(default="", repr=False)
    subtitle: str = field(default="", repr=False)
    body: str = field(default="", repr=False)
    badge: int | None = None
    sound: str = ""
    category: str = ""
    thread_id: str = ""
    mutable_content: bool = False
    interruption_level: str = ""
    relevance_score: float | None = None
    custom: str = field(default="", repr=False)
    background: bool = False
    fallback_after_ms: int = 0
    only_when_away: bool = False
