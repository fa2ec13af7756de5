"""Fan-out: encoded once, offered in runs, and what one follower or channel does is no matter to the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streampush.protocol.terms import Durability
from streampush.push.fanout import RUN_BYTES, RUN_MESSAGES, FanOut, Piece
from streampush.push.values import Appended, Publication
from tests.push.world import RecordingMetrics, World, decode, encode


class Broken(Exception):
    pass


class Follower:
    """Takes everything, remembers the very bytes; `hook` runs inside each offer."""

    def __init__(self, takes: bool = True) -> None:
        self.takes = takes
        self.offers: list[tuple[str, int, int, int]] = []
        self.frames: list[bytes] = []
        self.misses = 0
        self.hook: Callable[[], object] = lambda: None

    def offer(self, piece: Piece) -> bool:
        self.offers.append((piece.epoch, piece.before, piece.last, piece.messages))
        self.frames.append(piece.frames)
        self.hook()
        return self.takes

    def missed(self) -> None:
        self.misses += 1


class Bench:
    """A fan-out with a turn of its own."""

    def __init__(self) -> None:
        self.now = 5.0
        self.turns: list[Callable[[], None]] = []
        self.encoded: list[int] = []
        self.metrics = RecordingMetrics()
        self.receipts: list[tuple[Any, ...]] = []
        self.fanout = FanOut(self.encode, self.turns.append, lambda: self.now, self.metrics, self.written)

    def written(self, *receipts: Any) -> None:
        self.receipts.append(receipts)

    def encode(self, publication: Publication) -> bytes:
        self.encoded.append(publication.offset)
        if publication.payload == b"broken":
            raise Broken
        return encode(publication)

    def append(self, *offsets: int, channel: str = "news", epoch: str = "e", at: float = 5.0, payload: bytes = b"") -> None:
        for offset in offsets:
            publication = Publication(channel, offset, f"m{offset}", payload, 0)
            self.fanout.appended(Appended(publication, epoch, Durability.MEMORY), at)

    def follower(self, channel: str = "news", takes: bool = True) -> Follower:
        follower = Follower(takes)
        self.fanout.follow(channel, follower, "e", 0)
        return follower

    def turn(self) -> None:
        turns, self.turns[:] = list(self.turns), []
        for work in turns:
            work()


def test_a_publication_is_encoded_once_whoever_follows() -> None:
    bench = Bench()
    followers = [bench.follower() for _ in range(10)]
    bench.append(1, 2)
    bench.turn()
    assert bench.encoded == [1, 2]
    assert len({id(follower.frames[0]) for follower in followers}) == 1


def test_the_very_same_bytes_reach_every_connection() -> None:
    world = World()
    links = [world.follower(f"d{number}", "news")[1] for number in range(5)]
    world.publish("news")
    world.settle()
    assert len(world.encoded) == 1
    assert len({id(link.writes[0]) for link in links}) == 1


def test_nothing_is_encoded_when_nobody_follows() -> None:
    bench = Bench()
    bench.append(1)
    bench.turn()
    assert bench.encoded == []


def test_nothing_is_encoded_for_a_follower_that_has_gone_meanwhile() -> None:
    bench = Bench()
    follower = bench.follower()
    bench.append(1)
    bench.fanout.unfollow("news", follower)
    bench.turn()
    assert (bench.encoded, follower.offers) == ([], [])


def test_what_is_appended_in_one_turn_is_one_offer() -> None:
    bench = Bench()
    follower = bench.follower()
    bench.append(1, 2, 3)
    assert len(bench.turns) == 1
    bench.turn()
    assert follower.offers == [("e", 0, 3, 3)]
    assert [frame.offset for frame in decode(follower.frames[0])] == [1, 2, 3]


def test_what_is_appended_out_of_order_is_offered_in_order() -> None:
    bench = Bench()
    follower = bench.follower()
    bench.append(3, 1, 2)
    bench.turn()
    assert [frame.offset for frame in decode(follower.frames[0])] == [1, 2, 3]


def test_a_hole_cuts_the_run() -> None:
    bench = Bench()
    follower = bench.follower()
    bench.append(7, 5, 4, 8)
    bench.turn()
    assert follower.offers == [("e", 3, 5, 2), ("e", 6, 8, 2)]


def test_a_repeated_notification_cuts_the_run() -> None:
    bench = Bench()
    follower = bench.follower()
    bench.append(1, 2, 2, 3)
    bench.turn()
    assert follower.offers == [("e", 0, 2, 2), ("e", 1, 3, 2)]


def test_a_long_run_is_offered_in_pieces_of_so_many_messages() -> None:
    bench = Bench()
    follower = bench.follower()
    bench.append(*range(1, 2 * RUN_MESSAGES + 2))
    bench.turn()
    sizes = [messages for _, _, _, messages in follower.offers]
    assert sizes == [RUN_MESSAGES, RUN_MESSAGES, 1]
    assert [frame.offset for frames in follower.frames for frame in decode(frames)] == list(range(1, 2 * RUN_MESSAGES + 2))
    assert [before for _, before, _, _ in follower.offers] == [0, RUN_MESSAGES, 2 * RUN_MESSAGES]


def test_a_large_run_is_offered_in_pieces_of_so_many_bytes() -> None:
    bench = Bench()
    follower = bench.follower()
    bench.append(1, 2, 3, payload=b"x" * (RUN_BYTES // 5))  # as hex twice as long
    bench.append(4, payload=b"x" * RUN_BYTES)
    bench.turn()
    assert follower.offers == [("e", 0, 2, 2), ("e", 2, 3, 1), ("e", 3, 4, 1)]


def test_channels_do_not_mix() -> None:
    bench = Bench()
    news, sport = bench.follower("news"), bench.follower("sport")
    bench.append(1, channel="news")
    bench.append(1, 2, channel="sport")
    assert len(bench.turns) == 1
    bench.turn()
    assert (news.offers, sport.offers) == ([("e", 0, 1, 1)], [("e", 0, 2, 2)])


def test_what_waits_of_a_lost_log_is_not_offered() -> None:
    bench = Bench()
    follower = bench.follower()
    bench.append(8, 9, epoch="e")
    bench.append(1, epoch="f")
    bench.turn()
    assert follower.offers == [("f", 0, 1, 1)]
    assert (bench.fanout.top("news", "f"), bench.fanout.top("news", "e")) == (1, 0)


def test_a_follower_that_leaves_inside_an_offer_takes_others_with_it() -> None:
    bench = Bench()
    first, second = bench.follower(), bench.follower()
    first.hook = lambda: [bench.fanout.unfollow("news", follower) for follower in (first, second)]
    bench.append(1)
    bench.turn()
    assert bench.fanout.followers("news") == 0
    assert bench.fanout._channels == {}


def test_what_is_appended_inside_an_offer_goes_out_next_turn() -> None:
    bench = Bench()
    follower = bench.follower()

    def again() -> None:
        follower.hook = lambda: None
        bench.append(2)

    follower.hook = again
    bench.append(1)
    bench.turn()
    bench.turn()
    assert follower.offers == [("e", 0, 1, 1), ("e", 1, 2, 1)]


def test_a_failure_in_one_channel_does_not_reach_the_others() -> None:
    bench = Bench()
    bad, good, later = bench.follower("bad"), bench.follower("good"), bench.follower("later")
    bench.append(1, channel="good")
    bench.append(1, channel="bad", payload=b"broken")
    bench.append(1, channel="later")
    with pytest.raises(Broken):
        bench.turn()
    assert later.offers == []
    bench.turn()
    assert (len(good.offers), len(later.offers), len(bad.offers)) == (1, 1, 0)
    bench.append(2, channel="later")
    bench.turn()
    assert len(later.offers) == 2


def test_the_followers_of_a_channel_that_failed_are_sent_to_the_log() -> None:
    bench = Bench()
    first, second = bench.follower(), bench.follower()

    def fail() -> None:
        raise Broken

    first.hook = fail
    bench.append(1)
    with pytest.raises(Broken):
        bench.turn()
    assert second.offers == []
    assert (first.misses, second.misses) == (1, 1)


def test_a_broken_connection_is_closed_and_the_others_get_everything() -> None:
    world = World()
    (_, broken), (_, good) = world.follower("d1", "news"), world.follower("d2", "news")

    def fail() -> None:
        raise Broken

    broken.hook = fail
    world.publish("news")
    with pytest.raises(Broken):
        world.turn()
    world.settle()
    assert good.offsets("news") == [1]
    assert broken.closed is not None
    assert world.fanout.followers("news") == 1


def test_the_longest_wait_is_measured_from_the_earliest_publish() -> None:
    bench = Bench()
    bench.follower()
    bench.follower()
    bench.append(2, at=4.5)
    bench.append(1, at=3.0)
    bench.turn()
    assert bench.metrics.named("fanned_out") == [(4, 2, 2.0)]


def test_nothing_is_counted_when_nobody_took_it() -> None:
    bench = Bench()
    bench.follower(takes=False)
    bench.append(1)
    bench.turn()
    assert bench.metrics.named("fanned_out") == []


def test_the_top_is_the_highest_heard_of_while_somebody_follows() -> None:
    bench = Bench()
    follower = bench.follower()
    bench.append(5, 3)
    bench.fanout.follow("news", Follower(), "e", 4)
    assert bench.fanout.top("news", "e") == 5
    bench.fanout.follow("news", Follower(), "e", 9)
    assert bench.fanout.top("news", "e") == 9
    bench.fanout.unfollow("news", follower)
    assert bench.fanout.top("other", "e") == 0


def test_a_top_that_is_not_there_is_corrected_unless_more_was_heard_since() -> None:
    bench = Bench()
    bench.follower()
    bench.append(9)
    bench.fanout.correct("news", "e", 8, 3)
    assert bench.fanout.top("news", "e") == 9
    bench.fanout.correct("news", "f", 9, 3)
    assert bench.fanout.top("news", "e") == 9
    bench.fanout.correct("news", "e", 9, 3)
    assert bench.fanout.top("news", "e") == 3


def test_leaving_twice_or_a_channel_that_nobody_follows_is_harmless() -> None:
    bench = Bench()
    follower = bench.follower()
    bench.fanout.unfollow("other", follower)
    bench.fanout.unfollow("news", follower)
    bench.fanout.unfollow("news", follower)
    bench.fanout.correct("news", "e", 0, 1)
    assert bench.fanout._channels == {}
