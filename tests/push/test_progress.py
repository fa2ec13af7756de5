"""The record of the store, read as states and milestones: docs/protocol.md section 10.7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from streampush.protocol.terms import Durability, Milestone, Priority
from streampush.push.ids import message_id
from streampush.push.progress import ENDS, ORDER, MessageProgress, MessageState, progress_of
from streampush.push.values import DeviceReceipt, MessageRecord

ACCEPTED, STORED, WRITTEN, DELIVERED, PROCESSED, REJECTED, DEAD_LETTERED, RECALLED, EXPIRED = ORDER


def record(devices: Mapping[str, Mapping[Milestone, int]] | None = None, **changes: Any) -> MessageRecord:
    fields: dict[str, Any] = {
        "message_id": "M1",
        "channel": "user:ada",
        "epoch": "E1",
        "offset": 3,
        "publisher": "key:shop",
        "published_at_ms": 1000,
        "expires_at_ms": 0,
        "deliver_at_ms": 0,
        "priority": Priority.NORMAL,
        "collapse_key": "",
        "want_receipt": True,
        "size": 5,
        "durability": Durability.MEMORY,
        "devices": tuple(DeviceReceipt(name, times) for name, times in (devices or {}).items()),
    }
    return MessageRecord(**(fields | changes))


def progress(devices: Mapping[str, Mapping[Milestone, int]], now_ms: int = 2000, **changes: Any) -> MessageProgress:
    return progress_of(record(devices, **changes), (), now_ms, 10)


def test_a_device_without_any_milestone_waits() -> None:
    (row,) = progress_of(record(), ["phone"], 2000, 10).devices
    assert (row.device_id, row.state, row.ended) == ("phone", "waiting", False)
    assert row.times == {ACCEPTED: 1000, STORED: 1000}


def test_a_scheduled_message_was_accepted_when_its_id_was_made_and_stored_when_it_went_out() -> None:
    made = message_id(400, bytes)
    (row,) = progress({"phone": {}}, message_id=made, deliver_at_ms=900).devices
    assert row.times == {ACCEPTED: 400, STORED: 1000}
    (waiting,) = progress({"phone": {}}, message_id=made, deliver_at_ms=5000, offset=0, published_at_ms=400).devices
    assert waiting.times == {ACCEPTED: 400}


def test_rows_are_those_with_receipts_and_those_it_is_meant_for_in_order_of_their_names() -> None:
    found = progress_of(record({"b": {DELIVERED: 1500}}), ["c", "a", "b"], 2000, 10)
    assert [row.device_id for row in found.devices] == ["a", "b", "c"]


def test_rows_are_bounded_and_that_there_are_more_is_said() -> None:
    found = progress_of(record(), [f"d{number}" for number in range(11)], 2000, 10)
    assert (len(found.devices), found.more) == (10, True)
    assert not progress_of(record(), [f"d{number}" for number in range(10)], 2000, 10).more


def test_times_come_in_the_order_of_the_table() -> None:
    times = {PROCESSED: 1700, WRITTEN: 1500, DELIVERED: 1600}
    (row,) = progress({"phone": times}).devices
    assert list(row.times) == [ACCEPTED, STORED, WRITTEN, DELIVERED, PROCESSED]


@pytest.mark.parametrize(
    ("times", "state", "ended"),
    [
        ({WRITTEN: 1}, "written", False),
        ({WRITTEN: 1, DELIVERED: 2}, "delivered", False),
        ({WRITTEN: 1, DELIVERED: 2, PROCESSED: 3}, "processed", True),
        ({WRITTEN: 1, REJECTED: 2}, "rejected", True),
        ({WRITTEN: 1, DELIVERED: 2, DEAD_LETTERED: 3}, "dead_lettered", True),
    ],
)
def test_one_word_says_how_far_it_is_and_whether_more_is_to_come(times: dict[Milestone, int], state: str, ended: bool) -> None:
    (row,) = progress({"phone": times}).devices
    assert (row.state, row.ended) == (state, ended)


def test_it_expires_for_devices_that_have_not_answered() -> None:
    found = progress({"a": {WRITTEN: 1100}, "b": {WRITTEN: 1100, DELIVERED: 1200}}, 2500, expires_at_ms=1500)
    assert found.state is MessageState.EXPIRED
    assert [(row.state, row.times.get(EXPIRED)) for row in found.devices] == [("expired", 1500), ("delivered", None)]
    assert found.ending == "expired"


def test_before_its_time_it_is_not_expired() -> None:
    found = progress({"a": {}}, 1499, expires_at_ms=1500)
    assert (found.state, found.ending) == (MessageState.STORED, "")


def test_that_it_expired_for_a_device_is_said_when_answers_in_time_are_stored() -> None:
    found = progress({"a": {}}, 2499, expires_at_ms=1500)
    assert (found.state, found.devices[0].state, found.ending) == (MessageState.EXPIRED, "waiting", "")


@pytest.mark.parametrize("at_ms", [1500, 1600])
def test_an_answer_behind_its_time_leaves_expired_standing(at_ms: int) -> None:
    (row,) = progress({"a": {DELIVERED: at_ms}}, 2500, expires_at_ms=1500).devices
    assert (row.state, row.times[EXPIRED], row.times[DELIVERED]) == ("delivered", 1500, at_ms)


def test_recalled_is_a_milestone_of_every_device_and_wins_over_a_later_expiry() -> None:
    found = progress({"a": {}, "b": {DELIVERED: 1200}}, 3000, recalled_at_ms=1300, expires_at_ms=1500)
    assert found.state is MessageState.RECALLED
    assert [(row.state, row.times[RECALLED], row.times.get(EXPIRED)) for row in found.devices] == [
        ("recalled", 1300, None),
        ("delivered", 1300, None),
    ]
    assert found.ending == "complete"


def test_superseded_ends_it_for_every_device() -> None:
    found = progress({"a": {WRITTEN: 1100}, "b": {DELIVERED: 1100}, "c": {}}, superseded_by=9)
    assert [(row.state, row.ended) for row in found.devices] == [("superseded", True), ("delivered", True), ("superseded", True)]
    assert (found.state, found.ending) == (MessageState.SUPERSEDED, "complete")


def test_superseded_stays_an_end_whatever_is_stored_afterwards() -> None:
    times: dict[Milestone, int] = {}
    for milestone in (WRITTEN, DELIVERED, PROCESSED):
        assert progress({"a": dict(times)}, superseded_by=9).ending == "complete"
        times[milestone] = 1100
    assert progress({"a": times}, superseded_by=9).ending == "complete"


def test_superseded_is_an_end_also_of_what_has_too_many_devices_to_look_at() -> None:
    rows: dict[str, dict[Milestone, int]] = {f"d{number:02}": {} for number in range(11)}
    assert progress_of(replace(record(rows), superseded_by=9), (), 2000, 10).ending == "superseded"


def test_scheduled_is_accepted_and_not_stored() -> None:
    found = progress_of(record(offset=0, epoch="", deliver_at_ms=9000), ["phone"], 2000, 10)
    assert found.state is MessageState.SCHEDULED
    assert (found.devices[0].state, dict(found.devices[0].times)) == ("scheduled", {ACCEPTED: 1000})


def test_a_scheduled_one_that_went_out_was_stored_at_its_time() -> None:
    (row,) = progress({"phone": {}}, 9500, deliver_at_ms=9000).devices
    assert row.times == {ACCEPTED: 1000, STORED: 9000}


def test_it_is_complete_when_every_device_is_at_an_end() -> None:
    assert progress({"a": {PROCESSED: 1}, "b": {DELIVERED: 1}}).ending == ""
    assert progress({"a": {PROCESSED: 1}, "b": {REJECTED: 1}}).ending == "complete"


def test_with_more_devices_than_are_looked_at_it_is_never_complete() -> None:
    rows = {f"d{number:02}": {PROCESSED: 1} for number in range(11)}
    assert progress_of(record(rows), (), 2000, 10).ending == ""


def test_a_topic_has_no_rows_and_ends_by_time_recall_or_a_newer_version() -> None:
    assert progress({}, channel="news").ending == ""
    assert progress({}, 2500, channel="news", expires_at_ms=1500).ending == "expired"
    assert progress({}, channel="news", recalled_at_ms=1500).ending == "recalled"
    assert progress({}, channel="news", superseded_by=4).ending == "superseded"


def test_every_milestone_has_its_place() -> None:
    assert set(ORDER) == set(Milestone) - {Milestone.UNSPECIFIED}
    assert set(ORDER) >= ENDS
