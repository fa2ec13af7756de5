"""Heartbeats on fake time: docs/protocol.md section 7."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.protocol.heartbeat import Beat, Heartbeat, HeartbeatSettings

DEFAULT = HeartbeatSettings()
QUIET = 1.0  # `first`: the first ping coincides with the first one of the schedule


def timeline(heartbeat: Heartbeat, start: float, end: float) -> list[tuple[float, Beat]]:
    """Polls exactly when asked to, while the peer is silent."""
    seen: list[tuple[float, Beat]] = []
    now = start
    while now <= end:
        beats = heartbeat.poll(now)
        seen += [(now, beat) for beat in beats]
        if Beat.LOST in beats:
            break
        now = heartbeat.deadline
    return seen


def policies() -> st.SearchStrategy[HeartbeatSettings]:
    """Sound policies in whole seconds, so that sums are exact."""
    sizes = st.tuples(st.integers(2, 100), st.integers(1, 100), st.integers(1, 6))
    sound = sizes.filter(lambda size: size[1] <= (size[0] if size[2] > 1 else size[0] // 2))
    return sound.map(lambda size: HeartbeatSettings(float(size[0]), float(size[1]), size[2]))


class TestSettings:
    @pytest.mark.parametrize(
        ("interval", "reply_timeout", "misses", "problem"),
        [
            (30, 0, 3, "reply_timeout 0 must be above 0"),
            (30, -1, 3, "reply_timeout -1 must be above 0"),
            (30, 31, 3, "at most interval 30"),
            (0, 0, 3, "above 0"),
            (30, 10, 0, "misses 0 must be at least 1"),
            (30, 16, 1, "at most half of interval 30 for one miss"),
        ],
    )
    def test_a_policy_that_makes_no_sense_is_refused(
        self, interval: float, reply_timeout: float, misses: int, problem: str
    ) -> None:
        with pytest.raises(ValueError, match=problem):
            HeartbeatSettings(interval, reply_timeout, misses)

    def test_not_a_number_is_refused(self) -> None:
        with pytest.raises(ValueError, match="above 0"):
            HeartbeatSettings(float("nan"), float("nan"))

    def test_the_limits_themselves_are_allowed(self) -> None:
        assert HeartbeatSettings(30, 30, 2).misses == 2
        assert HeartbeatSettings(30, 15, 1).misses == 1


class TestSchedule:
    def test_the_defaults_beat_as_the_page_says(self) -> None:
        assert timeline(Heartbeat(DEFAULT, 0.0, QUIET), 0.0, 200.0) == [
            (30.0, Beat.PING_DUE),
            (40.0, Beat.PING_MISSED),
            (60.0, Beat.PING_DUE),
            (60.0, Beat.JITTER),
            (70.0, Beat.PING_MISSED),
            (80.0, Beat.PING_DUE),
            (90.0, Beat.PING_MISSED),
            (90.0, Beat.LOST),
        ]

    def test_the_client_beats_as_the_page_says(self) -> None:
        seen = timeline(Heartbeat(HeartbeatSettings(40.0, 10.0, 3), 0.0, QUIET), 0.0, 200.0)
        assert [at for at, beat in seen if beat is Beat.PING_DUE] == [40.0, 80.0, 110.0]
        assert seen[-1] == (120.0, Beat.LOST)

    def test_one_miss_has_no_jitter_window(self) -> None:
        seen = timeline(Heartbeat(HeartbeatSettings(30.0, 10.0, 1), 0.0, QUIET), 0.0, 200.0)
        assert seen == [(20.0, Beat.PING_DUE), (30.0, Beat.PING_MISSED), (30.0, Beat.LOST)]

    def test_lost_stays_lost(self) -> None:
        heartbeat = Heartbeat(DEFAULT, 0.0, QUIET)
        timeline(heartbeat, 0.0, 200.0)
        assert heartbeat.deadline == 90.0
        assert heartbeat.poll(300.0) == [Beat.LOST]

    def test_a_frame_sets_the_silence_back(self) -> None:
        heartbeat = Heartbeat(DEFAULT, 0.0, QUIET)
        timeline(heartbeat, 0.0, 75.0)
        heartbeat.heard(75.0)
        assert heartbeat.silence(80.0) == 5.0
        assert heartbeat.deadline == 105.0
        assert heartbeat.poll(104.9) == []
        assert heartbeat.poll(105.0) == [Beat.PING_DUE]


class TestFirstPing:
    @pytest.mark.parametrize(("first", "at"), [(0.0, 100.0), (0.25, 107.5), (0.99, 129.7)])
    def test_it_goes_out_at_its_point_of_the_interval(self, first: float, at: float) -> None:
        heartbeat = Heartbeat(DEFAULT, 100.0, first)
        assert heartbeat.deadline == at
        assert heartbeat.poll(at) == [Beat.PING_DUE]

    def test_it_goes_out_though_the_peer_is_heard(self) -> None:
        heartbeat = Heartbeat(DEFAULT, 0.0, 0.5)
        heartbeat.heard(14.0)
        assert heartbeat.poll(15.0) == [Beat.PING_DUE]
        assert heartbeat.deadline == 44.0

    def test_it_goes_out_once(self) -> None:
        heartbeat = Heartbeat(DEFAULT, 0.0, 0.5)
        heartbeat.poll(15.0)
        assert heartbeat.poll(29.0) == []

    def test_one_ping_serves_for_two_that_are_due(self) -> None:
        assert Heartbeat(DEFAULT, 0.0, 1.0).poll(30.0) == [Beat.PING_DUE]


class TestLatePolls:
    def test_after_a_long_sleep_the_peer_is_asked_before_it_is_given_up(self) -> None:
        heartbeat = Heartbeat(DEFAULT, 0.0, 0.0)
        heartbeat.poll(0.0)
        assert heartbeat.poll(1000.0) == [Beat.PING_DUE]
        rest = timeline(heartbeat, 1000.0, 2000.0)
        assert rest[0] == (1010.0, Beat.PING_MISSED)
        assert rest[-1] == (1060.0, Beat.LOST)

    def test_a_frame_ends_the_delay(self) -> None:
        heartbeat = Heartbeat(DEFAULT, 0.0, QUIET)
        heartbeat.poll(1000.0)
        heartbeat.heard(1001.0)
        assert heartbeat.deadline == 1031.0


class TestChange:
    def test_the_new_policy_counts_from_now(self) -> None:
        heartbeat = Heartbeat(DEFAULT, 0.0, 0.5)
        heartbeat.change(HeartbeatSettings(60.0, 10.0, 3), 10.0)
        assert heartbeat.deadline == 70.0


class TestPongs:
    def test_the_answer_gives_the_round_trip(self) -> None:
        heartbeat = Heartbeat(DEFAULT, 0.0, 0.5)
        assert heartbeat.pong(heartbeat.ping_sent(30.0), 30.25) == 0.25

    def test_an_answer_counts_once(self) -> None:
        heartbeat = Heartbeat(DEFAULT, 0.0, 0.5)
        number = heartbeat.ping_sent(30.0)
        heartbeat.pong(number, 31.0)
        assert heartbeat.pong(number, 32.0) is None

    def test_the_answer_to_an_older_ping_does_not_count(self) -> None:
        heartbeat = Heartbeat(DEFAULT, 0.0, 0.5)
        first = heartbeat.ping_sent(30.0)
        heartbeat.ping_sent(60.0)
        assert heartbeat.pong(first, 61.0) is None

    def test_an_answer_to_nothing_does_not_count(self) -> None:
        assert Heartbeat(DEFAULT, 0.0, 0.5).pong(1, 1.0) is None


class TestProperties:
    @given(policies(), st.integers(0, 10**6).map(float))
    def test_a_silent_peer_is_lost_exactly_at_misses_times_interval(self, policy: HeartbeatSettings, start: float) -> None:
        seen = timeline(Heartbeat(policy, start, QUIET), start, start + 10**4)
        assert seen[-1] == (start + policy.misses * policy.interval, Beat.LOST)

    @given(policies())
    def test_every_ping_had_its_reply_timeout(self, policy: HeartbeatSettings) -> None:
        seen = timeline(Heartbeat(policy, 0.0, QUIET), 0.0, 10.0**4)
        pings = [at for at, beat in seen if beat is Beat.PING_DUE]
        missed = [at for at, beat in seen if beat is Beat.PING_MISSED]
        assert len(missed) == policy.misses
        assert set(missed) == {at + policy.reply_timeout for at in pings}
        assert max(pings) + policy.reply_timeout == seen[-1][0]

    @given(policies(), st.lists(st.integers(1, 400), min_size=1, max_size=40))
    def test_late_polls_never_lose_a_peer_without_a_full_reply_timeout(self, policy: HeartbeatSettings, delays: list[int]) -> None:
        heartbeat = Heartbeat(policy, 0.0, QUIET)
        now = last_ping = 0.0
        for delay in delays:
            now += delay
            beats = heartbeat.poll(now)
            if Beat.LOST in beats:
                assert now >= last_ping + policy.reply_timeout
                assert now >= policy.misses * policy.interval
                return
            if Beat.PING_DUE in beats:
                last_ping = now

    @given(policies(), st.lists(st.integers(0, 99), max_size=30))
    def test_a_peer_that_is_heard_within_the_first_window_is_never_suspected(
        self, policy: HeartbeatSettings, gaps: list[int]
    ) -> None:
        heartbeat = Heartbeat(policy, 0.0, QUIET)
        now = 0.0
        normal = (policy.misses - 1) * policy.interval if policy.misses > 1 else policy.interval - policy.reply_timeout
        for gap in gaps:
            end = now + normal * gap / 100
            while heartbeat.deadline < end:
                beats = heartbeat.poll(heartbeat.deadline)
                assert not {Beat.JITTER, Beat.LOST} & set(beats)
            now = end
            heartbeat.heard(now)
