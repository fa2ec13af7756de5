"""What the application has answered, by ids: bounded, and right over several logs."""

from __future__ import annotations

from streampush.client.answered import MAX_ANSWERED, RECENT, Answered
from streampush.protocol.terms import Outcome
from tests.protocol import page


def test_an_answer_is_known_in_the_log_where_it_was_given_and_in_the_ones_behind_it() -> None:
    answered = Answered()
    answered.note("a", 1, Outcome.REJECTED)
    assert (answered.outcome("a"), answered.outcome("b")) == (Outcome.REJECTED, None)
    answered.other_log(0)
    answered.other_log(0)
    assert answered.outcome("a") is Outcome.REJECTED


def test_what_was_delivered_and_processed_later_is_answered_as_processed_in_another_log() -> None:
    answered = Answered()
    for offset, message_id in enumerate("abcd", 1):
        answered.note(message_id, offset, Outcome.REJECTED if message_id == "a" else Outcome.DELIVERED)
    assert answered.processed("c", 3) == 3
    answered.other_log(3)
    found = [answered.outcome(message_id) for message_id in "abcd"]
    assert found == [Outcome.REJECTED, Outcome.PROCESSED, Outcome.PROCESSED, Outcome.DELIVERED]


def test_an_offset_of_a_log_before_is_none_of_this_one() -> None:
    answered = Answered()
    answered.note("a", 7, Outcome.DELIVERED)
    answered.other_log(0)
    assert answered.processed("a", 7) == 0
    assert answered.outcome("a") is Outcome.PROCESSED
    answered.note("a", 5, Outcome.PROCESSED)
    assert answered.processed("a", 7) == 5


def test_a_message_that_is_not_known_has_the_offset_that_it_says() -> None:
    assert Answered().processed("a", 7) == 7


def test_behind_a_position_that_stands_still_the_oldest_is_forgotten_above_the_limit() -> None:
    answered = Answered()
    for offset in range(1, MAX_ANSWERED + 2):
        answered.note(f"m{offset}", offset, Outcome.PROCESSED)
    assert len(answered) == MAX_ANSWERED
    assert (answered.outcome("m1"), answered.outcome("m2")) == (None, Outcome.PROCESSED)


def test_in_front_of_the_position_the_last_ones_are_known() -> None:
    answered = Answered()
    for offset in range(1, RECENT + 2):
        answered.note(f"m{offset}", offset, Outcome.PROCESSED)
    answered.settle()
    assert len(answered) == RECENT
    assert (answered.outcome("m1"), answered.outcome("m2")) == (None, Outcome.PROCESSED)


def test_what_may_still_come_again_is_not_forgotten_because_the_position_moves() -> None:
    answered = Answered()
    for offset in range(1, 2 * RECENT + 1):
        answered.note(f"m{offset}", offset, Outcome.PROCESSED)
    answered.other_log(0)
    for offset in range(1, 2 * RECENT + 1):
        assert answered.outcome(f"m{offset}") is Outcome.PROCESSED
        answered.note(f"m{offset}", offset, Outcome.PROCESSED)
        answered.settle()
    assert len(answered) == RECENT


def test_what_has_not_come_again_with_the_backlog_is_forgotten_but_for_the_last_ones() -> None:
    answered = Answered()
    for offset in range(1, RECENT + 2):
        answered.note(f"m{offset}", offset, Outcome.PROCESSED)
    answered.other_log(0)
    answered.caught_up()
    assert (answered.outcome("m1"), answered.outcome("m2")) == (None, Outcome.PROCESSED)


def test_over_many_logs_no_more_is_remembered_than_over_two() -> None:
    answered = Answered()
    for number in range(3 * MAX_ANSWERED):
        answered.note(f"m{number}", number + 1, Outcome.PROCESSED)
        if number % 777 == 0:
            answered.other_log(0)
    assert len(answered) <= 2 * MAX_ANSWERED


def test_what_the_application_wants_again_is_forgotten() -> None:
    answered = Answered()
    answered.note("a", 1, Outcome.PROCESSED)
    answered.other_log(0)
    answered.note("b", 1, Outcome.PROCESSED)
    answered.forget()
    assert len(answered) == 0


def test_the_limits_are_those_of_the_page() -> None:
    text = page.section("11.6")
    assert f"newest {MAX_ANSWERED} of a channel" in text
    assert f"newest {RECENT} in front of it" in text
