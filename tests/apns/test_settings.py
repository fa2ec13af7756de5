"""What the settings say reaches the parts that act on it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from random import Random

import pytest

from streampush.apns.breaker import BreakerPolicy, State
from streampush.apns.client_limits import ClientLimits
from streampush.apns.outcome import Rejected, UnknownPolicy, Why
from streampush.apns.pace import Ticket, Wait
from streampush.apns.policies import Policies
from streampush.apns.pool_limits import PoolLimits
from streampush.apns.proxy import Proxy
from streampush.apns.rates import AppRate, AppRates
from streampush.apns.retry import Attempt, RetryPolicy
from streampush.apns.settings import app_rates, client_limits, policies_of, pool_limits, proxy, retry_policy
from streampush.config import ApnsAppConfig, ApnsConfig, Config
from streampush.errors import ConfigError
from tests.apns.minting import write_private


def test_the_defaults_are_those_of_the_parts() -> None:
    assert pool_limits(ApnsConfig()) == PoolLimits()
    assert client_limits(ApnsConfig()) == ClientLimits()
    assert retry_policy(ApnsAppConfig()) == RetryPolicy()
    assert policies_of(ApnsAppConfig(), ApnsConfig()) == Policies()


def test_each_limit_of_a_pool_that_has_a_setting_follows_it() -> None:
    limits = pool_limits(ApnsConfig(max_connections=1, max_in_flight=1, max_queued=2, max_queued_bytes=3, max_wait=4.0))
    changed = {field.name for field in fields(PoolLimits) if getattr(limits, field.name) != getattr(PoolLimits(), field.name)}
    assert changed == {"max_connections", "max_queued", "max_queued_bytes", "max_wait"}
    assert (limits.max_connections, limits.max_queued, limits.max_queued_bytes, limits.max_wait) == (1, 2, 3, 4.0)


def test_a_pool_has_room_for_all_that_a_client_gives_it() -> None:
    assert pool_limits(ApnsConfig(max_in_flight=50, max_queued=2)).max_queued == 50


def test_a_client_keeps_no_more_than_is_configured() -> None:
    limits = client_limits(ApnsConfig(max_queued=2, max_queued_bytes=3))
    assert (limits.max_queued, limits.max_queued_bytes) == (2, 3)


def test_an_app_decides_when_its_pushes_are_repeated() -> None:
    policy = retry_policy(ApnsAppConfig(repeat_unknown="never", server_error_wait=5.0))
    assert (policy.unknown, policy.server_error_wait) == (UnknownPolicy.NEVER, 5.0)


def test_an_app_may_have_policies_of_its_own() -> None:
    app = ApnsAppConfig(
        max_concurrent=7,
        max_tries=3,
        retry_share=0.2,
        retry_stock=5,
        device_rest=1.0,
        device_max_rest=2.0,
        breaker_answers=4,
        breaker_bad=0.25,
        breaker_slow=0.75,
        breaker_slow_after=2.5,
        breaker_max_rest=30.0,
    )
    breaker = BreakerPolicy(min_calls=4, max_bad=0.25, max_slow=0.75, min_slow_after=2.5, max_rest=30.0)
    assert policies_of(app, ApnsConfig()) == Policies(7, breaker, 0.2, 5, 1.0, 2.0)
    assert policies_of(app, ApnsConfig(max_in_flight=5)).max_concurrent == 5
    assert retry_policy(app).max_tries == 3


def test_the_policies_reach_the_pace() -> None:
    policies = Policies(3, BreakerPolicy(min_calls=1), device_rest=7.0, retry_stock=1)
    pace = policies.pace("shop", RetryPolicy(), AppRates({}, 0.0), 0.0, Random(1))
    tickets = [pace.enter_first(str(number), 0.0) for number in range(4)]
    assert [isinstance(ticket, Ticket) for ticket in tickets] == [True] * 3 + [False]
    too_many = Rejected(429, "TooManyRequests")
    assert isinstance(tickets[0], Ticket)
    pace.leave(tickets[0], "0", too_many, Attempt(1), 0.0, 0.0)
    wait = pace.enter_first("0", 1.0)
    assert isinstance(wait, Wait)
    assert (wait.why, wait.seconds) == (Why.DEVICE_RESTS, 6.0)
    assert isinstance(tickets[1], Ticket)
    pace.leave(tickets[1], "1", Rejected(500, "InternalServerError"), Attempt(1), 1.0, 1.0)
    assert pace.state is State.OPEN


def test_an_app_without_a_rate_is_not_limited() -> None:
    apps = (ApnsAppConfig("fast"), ApnsAppConfig("slow", rate=10.0, burst=5))
    assert app_rates(apps) == {"slow": AppRate(10.0, 5)}


def test_without_a_proxy_the_way_is_straight() -> None:
    assert proxy(Config()) is None


def test_a_proxy_gets_its_user_and_the_password_of_the_file(tmp_path: Path) -> None:
    password = write_private(tmp_path / "proxy.txt", b"swordfish\n")
    apns = ApnsConfig(proxy="[::1]:3128", proxy_user="streampush", proxy_password_file=password)
    assert proxy(Config(apns=apns)) == Proxy("::1", 3128, "streampush", "swordfish")


def test_a_password_that_cannot_be_read_names_its_setting(tmp_path: Path) -> None:
    apns = ApnsConfig(proxy="p:1", proxy_user="u", proxy_password_file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"apns\.proxy_password_file: .*none cannot be read"):
        proxy(Config(apns=apns))
