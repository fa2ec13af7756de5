"""Every invariant can fail: each test breaks the product in one place, and the simulation finds it within some hundred seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from streampush.client.inbox import Inbox
from streampush.client.positions import MemoryPositions
from streampush.protocol.heartbeat import Heartbeat
from streampush.protocol.terms import LossReason, Outcome
from streampush.push import recovery
from streampush.push.delivery import Attachment, Feed
from streampush.push.fanout import FanOut
from streampush.push.service import PushService
from streampush.push.values import CursorMove, Subscription
from streampush.server.admission import Admission
from tests.simulation.scenario import simulate
from tests.simulation.store import SimulatedStore
from tests.simulation.world import Broken

SEEDS = 400


def found(*rules: str) -> None:
    """Some seed breaks one of these rules, and none before it another."""
    for seed in range(SEEDS):
        try:
            simulate(seed)
        except Broken as broken:
            assert broken.rule in rules, f"seed {seed}: {broken}"
            return
    raise AssertionError(f"{SEEDS} seeds did not find it")


def wrap(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replaces a function by what `make` gives for it."""
    monkeypatch.setattr(where, name, make(getattr(where, name)))


def every(count: int) -> Callable[[], bool]:
    """True at every so manieth call."""
    calls = iter(range(10**9))
    return lambda: next(calls) % count == count - 1


def test_a_frame_that_is_offered_and_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    now = every(20)

    def make(offer: Any) -> Any:
        def sabotaged(self: Feed, epoch: str, before: int, last: int, frames: bytes, messages: int) -> bool:
            if self.live and self.sent == before and now():
                self.sent = last
                return True
            return bool(offer(self, epoch, before, last, frames, messages))

        return sabotaged

    wrap(monkeypatch, Feed, "offer", make)
    found("I1", "I4")


def test_a_feed_that_takes_what_does_not_continue_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(offer: Any) -> Any:
        def sabotaged(self: Feed, epoch: str, before: int, last: int, frames: bytes, messages: int) -> bool:
            self.sent = max(self.sent, before)
            return bool(offer(self, epoch, before, last, frames, messages))

        return sabotaged

    wrap(monkeypatch, Feed, "offer", make)
    found("I3", "I4")


def test_a_feed_that_falls_behind_and_never_reads_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attachment, "lags", lambda self, feed: None)
    found("I1", "I4")


def test_an_acknowledgement_to_the_publisher_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(commit: Any) -> Any:
        def sabotaged(self: SimulatedStore) -> None:
            batch = self._under_way
            if batch and batch[0].name == "append" and self._random.random() < 0.2:
                results = self._apply(batch)  # told as if it were on the disk
                self._disk.restore(self._disk.writes - sum(not isinstance(result, Exception) for result in results))
                self._disk._observe("lost", (), None)
                self._under_way, self._awake = [], False
                self._wake()
                for write, result in zip(batch, results, strict=True):
                    write.done.errback(result) if isinstance(result, Exception) else write.done.callback(result)
            else:
                commit(self)

        return sabotaged

    wrap(monkeypatch, SimulatedStore, "_commit", make)
    found("I1", "I3", "store")


def test_a_cursor_that_is_moved_further_than_what_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(acknowledge: Any) -> Any:
        def sabotaged(self: Attachment, channel: str, offset: int, outcome: Outcome, *more: Any) -> None:
            acknowledge(self, channel, offset, outcome, *more)
            feed = self.feeds[channel]
            self._around.move_cursor(CursorMove(self.principal.name, channel, feed.epoch, feed.sent))

        return sabotaged

    wrap(monkeypatch, Attachment, "acknowledge", make)
    found("I1", "I4")


def test_a_cursor_that_moves_past_a_loss_that_was_not_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(follow: Any) -> Any:
        def sabotaged(self: Attachment, subscription: Subscription) -> None:
            follow(self, subscription)
            move = CursorMove(self.principal.name, subscription.channel, subscription.epoch, subscription.offset)
            self._around.move_cursor(move)

        return sabotaged

    wrap(monkeypatch, Attachment, "follow", make)
    found("I1", "I4")


def test_a_position_that_is_proven_without_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(prove: Any) -> Any:
        async def sabotaged(*args: Any, known_id: bool) -> Subscription:
            return await prove(*args, known_id=False)  # type: ignore[no-any-return]  # wrapped

        return sabotaged

    wrap(monkeypatch, recovery, "_prove", make)
    found("I4")


def test_a_loss_that_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(prove: Any) -> Any:
        async def sabotaged(*args: Any, known_id: bool) -> Subscription:
            answer = await prove(*args, known_id=known_id)
            if answer.loss is LossReason.TRIMMED:
                return replace(answer, loss=LossReason.UNSPECIFIED, lost_at_most=0, recovered=True)
            return answer  # type: ignore[no-any-return]  # wrapped

        return sabotaged

    wrap(monkeypatch, recovery, "_prove", make)
    found("I4")


def test_presence_by_whoever_writes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(detach: Any) -> Any:
        def sabotaged(self: PushService, attachment: Attachment, code: int, detail: str) -> None:
            detach(self, attachment, code, detail)
            self._attachments.pop(attachment.principal.name, None)  # also if a newer connection is there

        return sabotaged

    wrap(monkeypatch, PushService, "detach", make)
    found("I6")


def test_a_dead_peer_that_is_never_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Heartbeat, "deadline", property(lambda self: float("inf")))
    found("I6")


def test_a_client_that_gives_repeats_to_its_application(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(disconnected: Any) -> Any:
        def sabotaged(self: Inbox) -> None:
            disconnected(self)
            for channel in self._channels.values():
                channel.seen = 0

        return sabotaged

    wrap(monkeypatch, Inbox, "disconnected", make)
    found("I2", "I3")


def test_a_client_that_remembers_a_position_before_the_application_has_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(process: Any) -> Any:
        async def sabotaged(self: Inbox, channel: Any, item: Any) -> None:
            delivery = item.delivery
            self._move(channel, replace(channel.position, epoch=item.epoch, offset=delivery.offset, last_message_id=delivery.message_id))
            await process(self, channel, item)

        return sabotaged

    wrap(monkeypatch, Inbox, "_process", make)
    found("I1", "I4")


def test_positions_that_are_not_kept_over_a_restart_of_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryPositions, "save", lambda self, channel, position: None)
    found("I2")


def test_a_window_that_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attachment, "takes", lambda self, messages, size: True)
    found("I5")


def test_a_follower_that_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FanOut, "unfollow", lambda self, channel, follower: None)
    found("I5", "fault")


def test_a_connection_that_is_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Admission, "released", lambda self, address: None)
    found("I5")
