"""A channel whose log goes on under another epoch: docs/protocol.md section 11.5."""

from __future__ import annotations

from streampush.client.channel import Channel, Item, Taken
from streampush.protocol.messages import Ack, Delivery, Position, Subscribed
from streampush.protocol.terms import LossReason, Outcome


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


def away(offset: int, *, put_off: bool = False) -> Channel:
    """It has taken everything up to there, and has lost its connection."""
    channel = Channel("news", Position("old", offset - 1, "m"), Position("old", offset - 1, "m"))
    channel.begin(Subscribed("news", "old", offset - 1, offset - 1, recovered=True), exact=False)
    channel.take(delivery(offset))
    item = Item(delivery(offset), "old", held=False)
    channel.finished(item, Outcome.RETRY_LATER if put_off else Outcome.PROCESSED)
    channel.disconnected()
    return channel


def test_who_comes_back_and_is_proven_under_another_epoch_goes_on() -> None:
    channel = away(5)
    mark = channel.begin(Subscribed("news", "new", 5, 6, recovered=True, last_message_id="m5"), exact=False)
    assert not mark.back
    assert not channel.moved(mark)
    assert channel.position == channel.reached == Position("new", 5, "m5")
    assert channel.take(delivery(5)) is Taken.REPEAT
    assert channel.take(delivery(6)) is Taken.NEW


def test_what_is_in_work_meanwhile_is_known_under_the_other_epoch() -> None:
    channel = away(5)
    channel.current = Item(delivery(6), "old", held=False)
    channel.disconnected()
    channel.begin(Subscribed("news", "new", 5, 6, recovered=True, last_message_id="m5"), exact=False)
    assert channel.take(delivery(6)) is Taken.REPEAT
    assert not channel.current.undone
    channel.disconnected()
    channel.begin(Subscribed("news", "newer", 5, 6, recovered=True, last_message_id="m5"), exact=False)
    assert channel.take(Delivery("news", 6, "other", b"")) is Taken.NEW
    assert channel.current.undone


def test_what_was_taken_in_front_of_what_was_put_off_is_not_proven() -> None:
    channel = away(5, put_off=True)
    assert channel.position != channel.reached
    mark = channel.begin(Subscribed("news", "new", 4, 6, recovered=True, last_message_id="m"), exact=False)
    assert mark.back
    assert channel.take(delivery(5)) is Taken.NEW


def test_another_id_there_proves_nothing() -> None:
    assert away(5).begin(Subscribed("news", "new", 5, 6, recovered=True, last_message_id="x"), exact=False).back


def test_a_position_is_proven_also_where_something_behind_it_has_expired() -> None:
    answer = Subscribed("news", "new", 5, 7, loss=LossReason.EXPIRED, lost_at_most=1, last_message_id="m5")
    assert not away(5).begin(answer, exact=False).back
