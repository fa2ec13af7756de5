"""docs/apns.md tells operators what the code does: its tables and numbers are held against it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from streampush.apns.apps import EXPIRY_WARNING
from streampush.apns.breaker import BreakerPolicy
from streampush.apns.client_limits import ClientLimits
from streampush.apns.concurrency import ConcurrencyPolicy
from streampush.apns.dead_tokens import DEFAULT_MAX_DOUBTFUL, DEFAULT_WINDOW
from streampush.apns.lanes import SUSPECT_SHARE
from streampush.apns.outcome import Why
from streampush.apns.provider_token import MIN_INTERVAL, RENEW_AFTER, SKEW_TOLERANCE
from streampush.apns.push import MAX_COLLAPSE_ID, MAX_DEVICE_TOKEN, MAX_PAYLOAD, MAX_VOIP_PAYLOAD, PUSH_TYPES, PushType
from streampush.apns.rates import FIRST_REST, MAX_REST
from streampush.apns.reasons import REASONS, Action
from streampush.apns.retry import RetryPolicy
from streampush.apns.simulator.order_files import KINDS
from streampush.config import ApnsAppConfig, ApnsConfig, Config
from streampush.config_apps import app_errors
from streampush.loading import describe_range

PAGE = (Path(__file__).parents[2] / "docs" / "apns.md").read_text(encoding="utf-8")


def table(head: str, behind: str = "") -> list[list[str]]:
    """The rows below this head, the first one behind a text, by cell."""
    page = PAGE[PAGE.index(behind) :]
    lines = page[page.index(f"| {head} |") :].splitlines()[2:]
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_every_reason_has_its_row() -> None:
    ours = [[str(row.status), f"`{word}`", row.meaning, f"`{row.action}`", row.advice] for word, row in REASONS.items()]
    assert table("status | reason | meaning | action | what you do") == ours


def test_every_action_is_told() -> None:
    assert [row[0] for row in table("action | what happens")] == [f"`{action}`" for action in Action]


def test_every_order_for_the_simulator_has_its_row_with_its_fields() -> None:
    rows = {row[0].strip("`"): row[2] for row in table("kind | what happens | fields")}
    assert set(rows) == set(KINDS)
    for kind, order in KINDS.items():
        told = set(re.findall(r"`([a-z_]+)`", rows[kind].partition(": `")[0]))
        assert told == {item.name for item in fields(order)} - {"when"}, kind


def test_every_reason_for_not_sending_is_told() -> None:
    told = {word.strip("` ") for row in table("`NotSent` because of | when | what then") for word in row[0].split(",")}
    answered = {Why.REFUSED_STREAM, Why.GONE_AWAY, Why.NO_ANSWER, Why.CONNECTION_LOST, Why.STREAM_RESET, Why.BAD_ANSWER}
    assert told == set(Why) - answered


def test_every_push_type_has_its_row() -> None:
    told = {name.strip(" `"): row for row in table("push type | suffix of the topic | sent with") for name in row[0].split(",")}
    assert set(told) == set(PushType)
    for push_type, rules in PUSH_TYPES.items():
        if push_type is not PushType.MDM:
            assert told[push_type][1].strip("`") == rules.suffix
            assert (told[push_type][2] == "key") is rules.key_only


def shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else "" if default in ("", ()) else str(default)


@pytest.mark.parametrize(("kind", "behind"), [(ApnsAppConfig, "[[apns.apps]]"), (ApnsConfig, "are in `[apns]`:")])
def test_every_setting_has_its_row(kind: type[ApnsAppConfig | ApnsConfig], behind: str) -> None:
    rows = []
    for field in fields(kind):
        if field.metadata:
            limits = ", ".join(filter(None, (field.metadata["unit"], describe_range(field))))
            rows.append([f"`{field.name}`", shown(field.default), limits, field.metadata["why"]])
    assert table("setting | default | unit, range | reason", behind) == rows


def test_the_apps_on_the_page_keep_every_rule() -> None:
    shop, simulated = re.findall(r"```toml\n(\[\[apns\.apps\]\].*?)```", PAGE, re.DOTALL)
    (found,) = tomllib.loads(shop)["apns"]["apps"]
    apps = [ApnsAppConfig(**found), *(ApnsAppConfig(**row) for row in tomllib.loads(simulated)["apns"]["apps"])]
    assert list(app_errors(Config(apns=ApnsConfig(apps=tuple(apps))))) == []


RETRY, BREAKER, CONCURRENCY, LIMITS = RetryPolicy(), BreakerPolicy(), ConcurrencyPolicy(), ClientLimits()


@pytest.mark.parametrize(
    "words",
    [
        f"1 to {MAX_DEVICE_TOKEN} bytes",
        f"at most {LIMITS.max_queued}, with {LIMITS.max_queued_bytes // 1024**2} MiB of payload",
        f"no answer after {LIMITS.answer_timeout:.0f} s has ended",
        f"takes no pushes for {LIMITS.connection_rest:.0f} s",
        f"it waits until {LIMITS.answer_spare:g} s before its deadline",
        f"at most {MAX_PAYLOAD} bytes, {MAX_VOIP_PAYLOAD} for `voip`",
        f"at most {MAX_COLLAPSE_ID} bytes",
        f"or else {FIRST_REST:.0f} s, doubled with each 429 in a row up to {MAX_REST / 60:.0f} minutes",
        f"more than {'half' if DEFAULT_MAX_DOUBTFUL == 0.5 else '?'} of the last {DEFAULT_WINDOW} answers",
        f"nothing and {RETRY.first_delay:.0f}, 2, 4 ... s, at most {RETRY.max_delay / 60:.0f} minutes",
        f"within {RETRY.soon * 1000:.0f}, 100, 200 ... ms",
        f"A 5XX without one waits {RETRY.server_error_wait / 60:.0f} minutes",
        f"At most {RETRY.max_tries} tries",
        f"of at least {BREAKER.min_calls} answers in {BREAKER.window:.0f} s",
        f"never below {BREAKER.min_slow_after:.0f} s nor above {BREAKER.max_slow_after:.0f} s",
        f"open for {BREAKER.first_rest:.0f} s, then 2, 4 ... {BREAKER.max_rest:.0f} s",
        f"begins at {CONCURRENCY.start} and doubles",
        f"it grows by {CONCURRENCY.step} a round",
        f"share a {'tenth' if SUSPECT_SHARE == 0.1 else '?'} of it",
        f"the last is {RENEW_AFTER / 60:.0f} minutes old, never twice within {MIN_INTERVAL / 60:.0f} minutes",
        f"from {EXPIRY_WARNING} days before its end",
        f"more than {SKEW_TOLERANCE:.0f} s away from ours",
    ],
)
def test_a_number_on_the_page_is_the_codes(words: str) -> None:
    assert words in PAGE.replace("\n", " ")
