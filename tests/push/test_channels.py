"""Names of channels, and who may use them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.channels import Kind, allowed, device_channel, kind_of, may_subscribe, own_channels, user_channel
from streampush.push.values import ChannelRules, Principal


def principal(name: str = "d1", user_id: str = "", *patterns: str) -> Principal:
    return Principal("device", name, user_id, may_subscribe=ChannelRules(patterns))


def permits(pattern: str, channel: str, name: str = "d1", user_id: str = "") -> bool:
    return allowed(ChannelRules((pattern,)), principal(name, user_id), channel)


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        ("device:d1", (Kind.DEVICE, "d1")),
        ("device:a:b", (Kind.DEVICE, "a:b")),
        ("user:u", (Kind.USER, "u")),
        ("news", (Kind.TOPIC, "news")),
        ("devices:d1", (Kind.TOPIC, "devices:d1")),
        ("news:de", (Kind.TOPIC, "news:de")),
        ("device", (Kind.TOPIC, "device")),
        ("Device:d1", (Kind.TOPIC, "Device:d1")),
        ("$probe", (Kind.INTERNAL, "$probe")),
        ("x" * 255, (Kind.TOPIC, "x" * 255)),
    ],
)
def test_a_name_says_its_kind(channel: str, expected: tuple[Kind, str]) -> None:
    assert kind_of(channel) == expected


@pytest.mark.parametrize(
    "channel",
    [
        *("", "device:", "user:", "a b", "a\n", "a\x00", "\x7f", "a\u2028b", "a\u00a0b", "\x85", "x" * 256, "ä" * 128),
        *("\ud800", "device:\udfff"),
    ],
)
def test_what_is_no_name_is_an_unknown_recipient(channel: str) -> None:
    with pytest.raises(Refused) as caught:
        kind_of(channel)
    assert caught.value.code is Code.UNKNOWN_RECIPIENT
    caught.value.detail.encode()


@pytest.mark.parametrize(
    ("pattern", "channel", "expected"),
    [
        ("news", "news", True),
        ("news", "news.de", False),
        ("news", "xnews", False),
        ("news.*", "news.de", True),
        ("news.*", "newsxde", False),
        ("news.*", "news.", True),
        ("*.de", "news.de", True),
        ("a*c*e", "abcde", True),
        ("a*c*e", "abcdef", False),
        ("*", "anything:at-all", True),
        ("[ab]+", "a", False),
        ("[ab]+", "[ab]+", True),
        ("a|b", "a", False),
        ("(?i)news", "NEWS", False),
        ("", "news", False),
    ],
)
def test_a_pattern_is_literal_but_for_stars(pattern: str, channel: str, expected: bool) -> None:
    assert permits(pattern, channel) is expected


def test_no_pattern_permits_nothing() -> None:
    assert not allowed(ChannelRules(), principal(), "news")


def test_any_of_several_patterns_is_enough() -> None:
    rules = ChannelRules(("news", "sport.*"))
    assert allowed(rules, principal(), "news")
    assert allowed(rules, principal(), "sport.ski")
    assert not allowed(rules, principal(), "newsport.x")


def test_the_askers_ids_are_filled_in() -> None:
    assert permits("chat.{device}", "chat.d1")
    assert not permits("chat.{device}", "chat.d2")
    assert permits("inbox.{user}.{device}", "inbox.u.d1", user_id="u")
    assert not permits("inbox.{user}.{device}", "inbox.v.d1", user_id="u")


def test_a_pattern_with_a_user_matches_nobody_without_one() -> None:
    assert not permits("inbox.{user}*", "inbox.")
    assert not permits("inbox.{user}*", "inbox.u")
    assert not permits("inbox.{user}", "inbox.{user}")


@pytest.mark.parametrize("wild", ["*", ".*", "d|x", "d1)|(.", "{user}", "[a-z]", "\\", "d$"])
def test_an_id_is_only_ever_itself(wild: str) -> None:
    assert permits("chat.{device}", f"chat.{wild}", name=wild, user_id="u")
    for other in ("chat.d1", "chat.x", "chat.u", "chat.", "chat.dd", "x"):
        assert not permits("chat.{device}", other, name=wild, user_id="u")


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_no_pair_of_ids_lets_a_device_at_anothers_channel(name: str, user_id: str, other: str) -> None:
    assert permits("x.{device}.{user}", f"x.{name}.{user_id}", name, user_id)
    if other != name:
        assert not permits("x.{device}.", f"x.{other}.", name, user_id)


def test_a_device_follows_its_own_channels() -> None:
    assert own_channels(principal("d1")) == ("device:d1",)
    assert own_channels(principal("d1", "u")) == ("device:d1", "user:u")
    assert (device_channel("d1"), user_channel("u")) == ("device:d1", "user:u")


@pytest.mark.parametrize(
    ("channel", "expected"),
    [("device:d1", True), ("user:u", True), ("device:d2", False), ("user:v", False), ("$probe", False), ("news", True)],
)
def test_even_a_star_does_not_let_a_device_at_anothers_channel(channel: str, expected: bool) -> None:
    assert may_subscribe(principal("d1", "u", "*"), channel) is expected


def test_topics_need_a_rule() -> None:
    assert not may_subscribe(principal("d1", "", "sport"), "news")
