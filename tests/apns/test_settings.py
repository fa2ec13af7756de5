"""What the settings say reaches the parts that act on it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from streampush.apns.client_limits import ClientLimits
from streampush.apns.outcome import UnknownPolicy
from streampush.apns.pool_limits import PoolLimits
from streampush.apns.proxy import Proxy
from streampush.apns.rates import AppRate
from streampush.apns.retry import RetryPolicy
from streampush.apns.settings import app_rates, client_limits, pool_limits, proxy, retry_policy
from streampush.config import ApnsAppConfig, ApnsConfig, Config
from streampush.errors import ConfigError
from tests.apns.minting import write_private


def test_the_defaults_are_those_of_the_parts() -> None:
    assert pool_limits(ApnsConfig()) == PoolLimits()
    assert client_limits(ApnsConfig()) == ClientLimits()
    assert retry_policy(ApnsAppConfig()) == RetryPolicy()


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
