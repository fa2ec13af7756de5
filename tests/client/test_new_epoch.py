"""A channel whose log goes on under another epoch: docs/protocol.md section 11.5."""

from __future__ import annotations

from streampush.client.channel import Channel, Item, Taken
from streampush.protocol.messages import Ack, Delivery, Position, Subscribed
from streampush.protocol.terms import Outcome


def delivery(offset: int) -> Delivery:
    return Delivery("news", offset, f"m{offset}", b"")


def test_a_log_that_goes_on_under_another_epoch_keeps_what_was_taken() -> None:
    channel = Channel("news", Position("old", 3, "m3"), Position("old", 3, "m3"))
    channel.begin(Subscribed("news", "old", 3, 3, recovered=True), exact=False)
    for offset in (4, 5):
        assert channel.take(delivery(offset)) is Taken.NEW
        channel.queue.append(Item(delivery(offset), "old", held=False))
    mark = channel.begin(Subscribed("news", "new", 5, 5, recovered=True, last_message_id="m5"), exact=False)
    assert not mark.back
    assert channel.take(delivery(5)) is Taken.REPEAT
    assert channel.take(delivery(6)) is Taken.NEW
    for _ in range(2):
        item = channel.queue.popleft()
        assert isinstance(item, Item)
        channel.current = item
        channel.finished(item, Outcome.PROCESSED)
    assert channel.take_acks()[-1] == Ack("news", 5, Outcome.PROCESSED, "new")
    assert channel.position == Position("new", 5, "m5")
