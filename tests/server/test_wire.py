"""Nothing that a publisher says, or is told, is lost between the wire and the application."""

from __future__ import annotations

import dataclasses

from streampush.protocol import messages as m
from streampush.protocol.terms import Durability, Priority
from streampush.push.values import Alert, Published, PublishRequest
from streampush.server import wire


def test_every_field_of_a_publish_reaches_the_application() -> None:
    most = (
        "user:ada",
        b"x",
        "text/plain",
        {"a": "b"},
        1500,
        Durability.MEMORY,
        "key",
        Priority.HIGH,
        "score",
        7,
        True,
        True,
        9,
        11,
    )
    message = m.Publish(*most, m.Alert(title="Dinner", badge=2))
    request = wire.publish_request(message)
    assert request == PublishRequest(
        "user:ada",
        b"x",
        "text/plain",
        {"a": "b"},
        ttl=1.5,
        durability=Durability.MEMORY,
        expires_at_ms=11,
        idempotency_key="key",
        priority=Priority.HIGH,
        collapse_key="score",
        deliver_at_ms=7,
        want_receipt=True,
        clear_on_processed=True,
        version=9,
        alert=Alert(title="Dinner", badge=2),
    )
    defaults = wire.publish_request(m.Publish("c", b""))
    assert all(getattr(request, each.name) != getattr(defaults, each.name) for each in dataclasses.fields(request))


def test_every_field_of_the_answer_reaches_the_publisher() -> None:
    published = Published("M", "c", 3, "E", Durability.MEMORY, 2, duplicate=True, superseded=True, deliver_at_ms=5)
    answer = wire.publish_ok(published)
    assert dataclasses.asdict(answer) == dataclasses.asdict(published)
