"""The judge sees every kind of broken promise, and takes no kept one for broken."""

from __future__ import annotations

from typing import Any

from tests.torture.verdict import MAX_SHOWN, Judge, Verdict, judge

CHANNEL = "news"
FOLLOWS = {"d": [CHANNEL]}


def ack(offset: int, message_id: str = "", text: str = "", **more: Any) -> dict[str, Any]:
    name = message_id or f"m{offset}"
    fields = {"publisher": "p", "channel": CHANNEL, "offset": offset, "message_id": name, "text": text or f"text of {name}"}
    return {"kind": "ack"} | fields | more


def got(offset: int, message_id: str = "", text: str = "", **more: Any) -> dict[str, Any]:
    return ack(offset, message_id, text) | {"kind": "got", "device": "d"} | more


def began(position: int = 0) -> dict[str, Any]:
    return {"kind": "began", "device": "d", "positions": {CHANNEL: position} if position else {}}


def told(kind: str, message_id: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "device": "d", "channel": CHANNEL, "message_id": message_id} | more


def recovered(offset: int, message_id: str = "") -> dict[str, Any]:
    return told("recovered", message_id or f"m{offset}", offset=offset)


def verdict(*records: dict[str, Any]) -> Verdict:
    return judge(records, FOLLOWS)


def broken(*records: dict[str, Any]) -> list[str]:
    return [text[:2] for text in verdict(*records).violations]


# --------------------------------------------------------------------------------------------------------------- kept promises


def test_kept_promises_are_no_violation() -> None:
    result = verdict(began(), ack(1), got(1), recovered(1), ack(2), got(2))
    assert (result.violations, result.acknowledged, result.delivered, result.repeats) == ([], 2, 2, 0)


def test_what_arrives_before_its_publisher_was_told_is_no_violation() -> None:
    assert broken(got(1), ack(1)) == []


def test_what_a_device_does_not_follow_is_not_missed() -> None:
    assert broken(ack(1, channel="other")) == []


def test_a_repeat_behind_the_position_of_a_new_life_is_expected_and_counted() -> None:
    result = verdict(began(), ack(1), ack(2), got(1), got(2), began(1), got(2))
    assert (result.violations, result.delivered, result.repeats) == ([], 2, 1)


def test_what_was_asked_for_again_may_come_behind_others() -> None:
    assert broken(ack(1), ack(2), got(1, later=True), got(2), got(1)) == []


def test_what_may_expire_was_recalled_or_superseded_need_not_come() -> None:
    records = [ack(1, may_go=True), ack(2), told("recalling", "m2"), ack(3, collapse_key="k"), ack(4, collapse_key="k"), got(4)]
    assert broken(*records) == []


def test_a_dead_letter_with_a_receipt_is_not_missed() -> None:
    assert broken(ack(1), told("dead", "m1"), told("receipt", "m1", milestones=["written", "dead_lettered"])) == []


def test_a_receipt_of_what_has_expired_need_not_know_of_the_delivery() -> None:
    assert broken(ack(1, may_go=True), got(1), told("receipt", "m1", milestones=["stored", "expired"])) == []


def test_a_loss_by_expiry_is_no_violation() -> None:
    assert broken(ack(1, may_go=True), told("lost", "", reason="EXPIRED")) == []


# ------------------------------------------------------------------------------------------------------------- broken: I1


def test_an_acknowledged_message_that_never_came_is_seen() -> None:
    assert broken(ack(1), ack(2), got(2)) == ["I1"]


def test_a_scheduled_message_that_never_came_is_seen() -> None:
    assert broken(ack(0, "m7")) == ["I1"]


def test_a_message_that_was_only_asked_for_again_is_missed() -> None:
    assert broken(ack(1), got(1, later=True)) == ["I1"]


def test_the_newest_of_a_collapse_key_is_missed() -> None:
    assert broken(ack(1, collapse_key="k"), got(1), ack(2, collapse_key="k")) == ["I1"]


def test_a_recall_that_was_not_told_is_seen() -> None:
    recall = [ack(1), got(1), told("recalling", "m1"), told("recalled", "m1")]
    assert broken(*recall) == ["I1"]
    assert broken(*recall, told("notice", "m1")) == []


def test_a_refusal_without_a_reason_is_seen() -> None:
    assert broken({"kind": "wrong", "text": "404"}) == ["I1"]


def test_a_receipt_without_the_delivery_is_seen() -> None:
    assert broken(ack(1), got(1), told("receipt", "m1", milestones=["written"])) == ["I1"]


def test_a_receipt_without_the_dead_letter_is_seen() -> None:
    assert broken(ack(1), told("dead", "m1"), told("receipt", "m1", milestones=["written"])) == ["I1"]


# ------------------------------------------------------------------------------------------------------------- broken: I2


def test_a_repeat_within_one_life_is_seen() -> None:
    assert broken(ack(1), got(1), got(1)) == ["I2"]


def test_a_repeat_of_what_was_remembered_is_seen() -> None:
    assert broken(ack(1), got(1), began(1), got(1)) == ["I2"]


def test_a_message_that_was_stored_twice_is_seen() -> None:
    assert set(broken(ack(1, "m1", "t"), ack(2, "m2", "t"), got(1, "m1", "t"), got(2, "m2", "t"))) == {"I2"}


def test_a_copy_of_which_no_publisher_was_told_is_seen() -> None:
    assert "I2" in broken(got(1, "m1", "t"), got(2, "m2", "t"), ack(2, "m2", "t"))


def test_a_channel_that_is_not_followed_is_seen() -> None:
    assert broken(got(1, channel="other")) == ["I2"]


# ------------------------------------------------------------------------------------------------------------- broken: I3


def test_a_wrong_order_is_seen() -> None:
    assert broken(ack(1), ack(2), got(2), got(1)) == ["I3"]


def test_a_wrong_order_of_one_publisher_is_seen() -> None:
    assert broken(ack(2), ack(1), got(1), got(2)) == ["I3"]
    assert broken(ack(2), ack(1, publisher="q"), got(1), got(2)) == []


def test_a_message_behind_its_recall_is_seen() -> None:
    assert broken(ack(1), told("recalling", "m1"), told("notice", "m1"), got(1)) == ["I3"]


# ------------------------------------------------------------------------------------------------------------- broken: I4


def test_a_proof_over_a_gap_is_seen_although_the_message_came_later() -> None:
    assert broken(ack(1), ack(2), got(2), recovered(2), began(), got(1)) == ["I4"]


def test_a_proof_by_another_message_is_seen() -> None:
    assert broken(ack(1), got(1), recovered(1, "other")) == ["I4"]


def test_an_offset_that_is_two_messages_is_seen() -> None:
    assert "I4" in broken(ack(1, "m1"), got(1, "m9"))


def test_a_loss_is_seen() -> None:
    assert broken(told("lost", "", reason="REWOUND")) == ["I4"]


def test_a_loss_by_expiry_where_nothing_expired_is_seen() -> None:
    assert broken(ack(1), got(1), told("lost", "", reason="EXPIRED")) == ["I4"]


# ------------------------------------------------------------------------------------------------------------------- telling


def test_violations_above_a_number_are_told_in_one_line() -> None:
    found = verdict(*(ack(offset) for offset in range(1, 100))).violations
    assert len(found) == MAX_SHOWN + 1
    assert found[-1] == "I1: and more"


def test_what_must_still_come_is_known_before_the_end() -> None:
    court = Judge(FOLLOWS)
    court.hear(ack(1))
    assert court.missing() == [("d", "m1")]
    court.hear(got(1))
    assert court.missing() == []
