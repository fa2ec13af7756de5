"""What the settings say, in the values that the parts of this room take."""

from __future__ import annotations

from collections.abc import Iterable

from streampush.apns.breaker import BreakerPolicy
from streampush.apns.client_limits import ClientLimits
from streampush.apns.outcome import UnknownPolicy
from streampush.apns.policies import Policies
from streampush.apns.pool_limits import PoolLimits
from streampush.apns.proxy import Proxy
from streampush.apns.rates import AppRate
from streampush.apns.retry import RetryPolicy
from streampush.config import ApnsAppConfig, ApnsConfig, Config
from streampush.config_apps import split_place
from streampush.config_files import read_password
from streampush.errors import ConfigError


def pool_limits(apns: ApnsConfig) -> PoolLimits:
    """Of each pool. What a client has given to it waits in it until there is a connection, so there must be room for that."""
    return PoolLimits(
        max_connections=apns.max_connections,
        max_queued=max(apns.max_queued, apns.max_in_flight),
        max_queued_bytes=apns.max_queued_bytes,
        max_wait=apns.max_wait,
    )


def client_limits(apns: ApnsConfig) -> ClientLimits:
    """Of the client of each app."""
    return ClientLimits(max_queued=apns.max_queued, max_queued_bytes=apns.max_queued_bytes)


def proxy(config: Config) -> Proxy | None:
    """The way to Apple, None for the straight one. Reads the file of the password. Raises ConfigError."""
    apns = config.apns
    if not apns.proxy:
        return None
    host, port = split_place(apns.proxy)
    password = ""
    if apns.proxy_password_file:
        try:
            password = read_password(apns.proxy_password_file)
        except ValueError as error:
            raise ConfigError(config.file, "apns.proxy_password_file", str(error)) from None
    return Proxy(host, port, apns.proxy_user, password)


def retry_policy(app: ApnsAppConfig) -> RetryPolicy:
    """Of an app's pushes."""
    return RetryPolicy(server_error_wait=app.server_error_wait, max_tries=app.max_tries, unknown=UnknownPolicy(app.repeat_unknown))


def policies_of(app: ApnsAppConfig, apns: ApnsConfig) -> Policies:
    """The others of an app."""
    return Policies(
        max_concurrent=min(app.max_concurrent or apns.max_in_flight, apns.max_in_flight),
        breaker=BreakerPolicy(
            min_calls=app.breaker_answers,
            max_bad=app.breaker_bad,
            max_slow=app.breaker_slow,
            max_rest=app.breaker_max_rest,
            min_slow_after=app.breaker_slow_after,
        ),
        retry_share=app.retry_share,
        retry_stock=app.retry_stock,
        device_rest=app.device_rest,
        device_max_rest=app.device_max_rest,
    )


def app_rates(apps: Iterable[ApnsAppConfig]) -> dict[str, AppRate]:
    """Of the apps that have one, by name."""
    return {app.name: AppRate(app.rate, app.burst) for app in apps if app.rate}
