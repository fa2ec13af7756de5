"""docs/protocol.md is normative: every number in its tables is the code's, and the schema's."""

from __future__ import annotations

import re
from dataclasses import fields
from enum import IntEnum

import pytest

from streampush._pb import streampush_pb2 as pb
from streampush.config import Config
from streampush.protocol import messages as m
from streampush.protocol import terms
from streampush.protocol.client_session import MAX_SLOWED_INTERVAL
from streampush.protocol.codes import CODES, Advice, Code
from streampush.protocol.events import SessionSettings
from streampush.protocol.framing import MAX_FRAME_LIMIT
from streampush.protocol.heartbeat import HeartbeatSettings
from streampush.protocol.session import MAX_PING_STRIKES
from streampush.protocol.state import CLIENT_TABLE, INPUT_OF, SERVER_TABLE, Input, State, Table
from tests.protocol import page

ENUMERATIONS: tuple[type[IntEnum], ...] = (
    Code,
    Advice,
    terms.Durability,
    terms.Outcome,
    terms.Priority,
    terms.Start,
    terms.LossReason,
    terms.AppState,
    terms.TokenProvider,
    terms.Milestone,
)


class TestCodes:
    def test_every_code_has_its_row(self) -> None:
        rows, _ = page.tables("8")
        ours = [[str(int(code)), code.name, info.meaning, info.advice.name] for code, info in CODES.items()]
        assert [row[:4] for row in rows[1:]] == ours

    def test_every_code_says_how_it_is_sent(self) -> None:
        rows, _ = page.tables("8")
        assert all(set(row[4].split(", ")) <= set("EGWL") for row in rows[1:])

    def test_every_advice_says_what_to_do(self) -> None:
        _, rows = page.tables("8")
        assert [row[:2] for row in rows[1:]] == [[str(int(advice)), advice.name] for advice in Advice]

    def test_every_code_has_an_advice(self) -> None:
        assert CODES.keys() == set(Code)


class TestEnumerations:
    @pytest.mark.parametrize("ours", ENUMERATIONS, ids=lambda kind: kind.__name__)
    def test_ours_are_the_schemas(self, ours: type[IntEnum]) -> None:
        schema = pb.DESCRIPTOR.enum_types_by_name[ours.__name__]
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", ours.__name__).upper() + "_"
        numbers = {value.name.removeprefix(prefix): value.number for value in schema.values if value.number or ours is not Code}
        assert numbers == {member.name: int(member) for member in ours}

    def test_the_schema_has_no_other(self) -> None:
        assert set(pb.DESCRIPTOR.enum_types_by_name) == {kind.__name__ for kind in ENUMERATIONS}

    def test_the_page_lists_them(self) -> None:
        (rows,) = page.tables("5.4")
        listed = {row[0].strip("`"): dict(re.findall(r"(\d+) ([A-Z_]+)\b", row[1])) for row in rows[1:]}
        for name, values in listed.items():
            ours = {str(int(member)): member.name for member in getattr(terms, name) if member.name != "UNSPECIFIED"}
            values.pop("0", None)
            assert values == ours
        assert listed.keys() == {kind.__name__ for kind in ENUMERATIONS} - {"Code", "Advice"}

    def test_the_feature_bits_are_listed(self) -> None:
        (rows,) = page.tables("5.3")
        assert {row[1]: int(row[0]) for row in rows[1:]} == {bit.name: bit.value for bit in terms.Feature if bit}


class TestMessages:
    def test_every_message_is_listed_with_its_field(self) -> None:
        listed: dict[str, str] = {}
        for number in ("5.1", "5.2"):
            (rows,) = page.tables(number)
            for row in rows[1:]:
                names, numbers = row[0].replace("`", "").split(", "), row[1].split(", ")
                for name, field in zip(names, numbers, strict=True):
                    assert listed.setdefault(name, field) == field
        body = pb.Envelope.DESCRIPTOR.oneofs_by_name["body"].fields
        assert listed == {field.message_type.name: str(field.number) for field in body}


class TestAlert:
    def test_every_field_of_an_alert_is_listed(self) -> None:
        (rows,) = page.tables("5.6")
        listed = [name.strip("`") for row in rows[1:] for name in row[0].split(", ")]
        assert listed == [field.name for field in pb.DESCRIPTOR.message_types_by_name["Alert"].fields]


def cells(table: Table) -> dict[tuple[State, Input], str]:
    """Our table in the words of the page."""
    words: dict[tuple[State, Input], str] = {}
    for state in State:
        for kind in Input:
            target = table.get((state, kind))
            words[state, kind] = target.value if target is not None else "-" if kind is Input.DRAIN else "2010"
    return words


class TestStates:
    @pytest.mark.parametrize(("number", "table"), [("6.1", SERVER_TABLE), ("6.2", CLIENT_TABLE)], ids=["server", "client"])
    def test_the_tables_are_the_codes(self, number: str, table: Table) -> None:
        by_name: dict[str, Input] = {kind.__name__: what for kind, what in INPUT_OF.items()}
        by_name |= {"TLS handshake done": Input.TLS_DONE, "drain": Input.DRAIN, "unknown message": Input.UNKNOWN}
        (rows,) = page.tables(number)
        states = [State(name) for name in rows[0][1:]]
        ours = cells(table)
        seen: set[str] = set()
        for row in rows[1:]:
            for name in row[0].split(", "):
                seen.add(name)
                assert {name: row[1:]} == {name: [ours[state, by_name[name]] for state in states]}
        assert seen == set(by_name) - {"Unknown"}

    @pytest.mark.parametrize("table", [SERVER_TABLE, CLIENT_TABLE], ids=["server", "client"])
    def test_nothing_happens_on_a_closed_session(self, table: Table) -> None:
        assert not [pair for pair in table if pair[0] is State.CLOSED]

    def test_every_message_has_an_input(self) -> None:
        assert INPUT_OF.keys() == set(m.Message.__args__)  # type: ignore[attr-defined]


class TestNumbers:
    def test_every_setting_of_the_page_has_the_default_of_the_configuration(self) -> None:
        (rows,) = page.tables("9")
        config = Config()
        for name, unit, default, *_ in rows[1:]:
            group_name, key = name.split(".")
            group = getattr(config, group_name)
            assert f"{name} {float(default)}" == f"{name} {float(getattr(group, key))}"
            (setting,) = [item for item in fields(group) if item.name == key]
            assert (name, setting.metadata["unit"]) == (name, unit)

    def test_the_announced_names_are_fields_of_the_schema(self) -> None:
        (rows,) = page.tables("9")
        for row in rows[1:]:
            if row[3]:
                message, field = row[3].split(".")
                kind = {"limits": "Limits", "heartbeat": "HeartbeatPolicy", "reconnect": "ReconnectPolicy"}.get(message, message)
                assert field in pb.DESCRIPTOR.message_types_by_name[kind].fields_by_name

    def test_the_codes_defaults_are_the_configurations(self) -> None:
        config, settings, heartbeat = Config(), SessionSettings(), HeartbeatSettings()
        for field in fields(SessionSettings):
            if field.name != "heartbeat":
                assert (field.name, getattr(settings, field.name)) == (field.name, getattr(config.session, field.name))
        for name in ("interval", "reply_timeout", "misses", "min_ping_interval"):
            assert (name, getattr(heartbeat, name)) == (name, getattr(config.heartbeat, name))

    def test_what_is_announced_by_default_is_the_configuration(self) -> None:
        config = Config()
        policy, reconnect = m.HeartbeatPolicy(), m.ReconnectPolicy()
        assert policy.interval_ms == config.heartbeat.interval * 1000
        assert policy.reply_timeout_ms == config.heartbeat.reply_timeout * 1000
        assert policy.misses == config.heartbeat.misses
        assert policy.min_ping_interval_ms == config.heartbeat.min_ping_interval * 1000
        assert reconnect.first_jitter_ms == config.reconnect.first_jitter * 1000
        assert reconnect.backoff_initial_ms == config.reconnect.backoff_initial * 1000
        assert reconnect.backoff_max_ms == config.reconnect.backoff_max * 1000
        assert reconnect.degraded_after == config.reconnect.degraded_after

    @pytest.mark.parametrize(
        ("number", "words"),
        [
            ("3", f"The largest `max_frame` is {MAX_FRAME_LIMIT}"),
            ("7", "The fourth strike closes" if MAX_PING_STRIKES == 3 else "?"),
            ("7", "at most to an hour" if MAX_SLOWED_INTERVAL == 3600 else "?"),
        ],
    )
    def test_a_number_in_the_prose_is_the_codes(self, number: str, words: str) -> None:
        assert words in page.section(number)
