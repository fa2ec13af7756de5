"""The table of a handover: what the process that serves does, whatever happens in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streampush.handover.steps import TABLE, Action, Event, Stage, Steps

EVENTS = st.lists(st.sampled_from(Event), max_size=40)


def play(*events: Event) -> tuple[list[Action | None], Stage]:
    steps = Steps()
    return [steps.happened(event) for event in events], steps.stage


def test_the_way_of_a_handover() -> None:
    actions, stage = play(Event.ASKED, Event.HELD, Event.RELEASED, Event.TAKEN)
    assert actions == [Action.OFFER, Action.RELEASE, Action.TELL_FREE, Action.LEAVE]
    assert stage is Stage.LEFT


def test_every_stage_can_be_reached_and_is_left_when_the_successor_is_lost() -> None:
    assert {stage for stage, _ in TABLE} == set(Stage)
    assert {stage for stage, event in TABLE if event is Event.LOST} == set(Stage) - {Stage.ALONE, Stage.ORPHANED}


@given(EVENTS)
def test_it_leaves_only_for_a_successor_that_serves(events: list[Event]) -> None:
    actions, stage = play(*events)
    assert (Action.LEAVE in actions) == (stage is Stage.LEFT)
    assert actions.count(Action.LEAVE) <= 1


@given(EVENTS)
def test_each_release_is_answered_by_coming_back_or_by_leaving(events: list[Event]) -> None:
    actions, stage = play(*events)
    released = actions.count(Action.RELEASE)
    ended = actions.count(Action.RESUME) + actions.count(Action.LEAVE)
    under_way = stage in (Stage.RELEASING, Stage.ORPHANED, Stage.FREED)
    assert released == ended + under_way


@given(EVENTS)
def test_only_one_successor_at_a_time_is_offered_anything(events: list[Event]) -> None:
    steps, has_one = Steps(), False
    for event in events:
        action = steps.happened(event)
        if action is Action.OFFER:
            assert not has_one
            has_one = True
        has_one = has_one and steps.stage is not Stage.ALONE


@given(EVENTS, st.sampled_from(Event))
def test_what_must_not_happen_changes_nothing(events: list[Event], event: Event) -> None:
    steps = Steps()
    for each in events:
        steps.happened(each)
    before = steps.stage
    if steps.happened(event) is None:
        assert steps.stage is before
