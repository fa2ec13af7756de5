"""Where Redis is, from a URL."""

from __future__ import annotations

import pytest

from streampush.redis_url import RedisAddress, parse_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", RedisAddress((("localhost", 6379),))),
        ("rediss://r.example:7000/3", RedisAddress((("r.example", 7000),), True, database=3)),
        ("redis://us%40er:p%3Aw%2Fd@h", RedisAddress((("h", 6379),), user="us@er", password="p:w/d")),
        ("redis://:secret@[::1]:7/0", RedisAddress((("::1", 7),), password="secret")),
        (
            "redis+sentinel://a,b:1,c/main/2",
            RedisAddress((("a", 26379), ("b", 1), ("c", 26379)), service="main", database=2),
        ),
    ],
)
def test_what_a_url_says(url: str, address: RedisAddress) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://:hidden@h",
        "redis://",
        "redis://:hidden@",
        "redis://h:0",
        "redis://h:99999",
        "redis://h:hidden",
        "redis://:hidden@a,b",
        "redis://h/x",
        "redis://h/16",
        "redis://h/1/2",
        "redis://h?db=1",
        "redis+sentinel://a,b",
        "redis+sentinel://" + ",".join("a" * 1 for _ in range(17)) + "/s",
        "redis://[::1",
    ],
)
def test_a_wrong_one_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_url(url)
    assert "hidden" not in str(caught.value)


def test_what_is_logged_has_neither_user_nor_password() -> None:
    address = parse_url("redis+sentinel://user:hidden@a:1,[::1]:2/main/3")
    assert str(address) == "redis+sentinel://a:1,[::1]:2/main/3"
    assert "hidden" not in repr(address)
