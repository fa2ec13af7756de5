"""Orders as text: a TOML or JSON file, and presets by name."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, Final

from streampush.apns.simulator.orders import (
    PRESETS,
    AgeEnd,
    Close,
    Delay,
    DropLimit,
    EndlessHeaders,
    Flood,
    FloodOf,
    Freeze,
    Garbage,
    GoAway,
    GoAwayAtOnce,
    Http11,
    HugeHeaders,
    IdleEnd,
    OddAnswer,
    OneStreamFirst,
    Order,
    Orders,
    RefuseStream,
    Reject,
    ResetStream,
    Spread,
    Stall,
    StopReading,
    TinyWindows,
    UnusualAnswer,
    UseTable,
    When,
)
from streampush.apns.simulator.reasons import Reason

_KINDS: Final[tuple[type[Order], ...]] = (
    RefuseStream,
    ResetStream,
    Stall,
    Reject,
    OddAnswer,
    EndlessHeaders,
    HugeHeaders,
    UnusualAnswer,
    Garbage,
    Delay,
    GoAway,
    Close,
    Freeze,
    StopReading,
    Flood,
    OneStreamFirst,
    DropLimit,
    TinyWindows,
    UseTable,
    AgeEnd,
    IdleEnd,
    GoAwayAtOnce,
    Http11,
)

_BETWEEN_WORDS: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")

KINDS: Final[dict[str, type[Order]]] = {_BETWEEN_WORDS.sub("-", kind.__name__).lower(): kind for kind in _KINDS}
"""Orders by the `kind` that a file gives them: refuse-stream, go-away, ..."""

_WHEN_FIELDS: Final = {item.name: type(item.default) for item in fields(When)}


def load_orders(text: str, source: str) -> Orders:
    """The orders of a file's text, JSON when it begins with a brace, else TOML.

    `seed = 7`, `presets = ["cold", "refuse"]` and a table `[[order]]` for each order: its `kind` (see KINDS), its own fields, and
    those of `When`. Raises ValueError that names `source` and what is wrong in it.
    """
    try:
        data = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    unknown = sorted(set(data) - {"seed", "presets", "order"})
    if unknown:
        raise ValueError(f"{source}: {unknown[0]}: unknown key; known are seed, presets and order")
    seed = _typed(data.get("seed", 0), int, f"{source}: seed")
    orders = Orders(seed=seed)
    for name in _typed(data.get("presets", []), list, f"{source}: presets"):
        orders += preset(name, source)
    rows = _typed(data.get("order", []), list, f"{source}: order")
    return orders + Orders(tuple(_order(row, f"{source}: order {number}") for number, row in enumerate(rows, 1)))


def preset(name: object, source: str = "orders") -> Orders:
    """The orders of that name. Raises ValueError that lists the names."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"{source}: no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name].orders


def describe(order: Order) -> str:
    """The order in one line, as a file would have it: its kind and what differs from the defaults."""
    kind = next(kind for kind, order_type in KINDS.items() if isinstance(order, order_type))
    when = getattr(order, "when", None)
    parts = [kind]
    for value in (order, when) if when is not None else (order,):
        for item in fields(value):
            given = getattr(value, item.name)
            if item.name != "when" and given != item.default:
                parts.append(f"{item.name}={given.word if isinstance(given, Reason) else getattr(given, 'value', given)}")
    return " ".join(parts)


def _order(row: object, where: str) -> Order:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: not a table")
    values = dict(row)
    kind = values.pop("kind", "")
    if kind not in KINDS:
        raise ValueError(f"{where}: kind {kind!r}; there are {', '.join(KINDS)}")
    order = KINDS[kind]
    known = {item.name: item for item in fields(order)}
    has_when = known.pop("when", None) is not None
    arguments: dict[str, Any] = {}
    if has_when:
        given = {name: values.pop(name) for name in _WHEN_FIELDS if name in values}
        arguments["when"] = _when(given, where)
    for name, value in values.items():
        if name not in known:
            fitting = ", ".join([*known, *(_WHEN_FIELDS if has_when else ())])
            raise ValueError(f"{where}: {name}: unknown for {kind}; there are {fitting}")
        arguments[name] = _convert(value, str(known[name].type), f"{where}: {name}")
    try:
        return order(**arguments)
    except TypeError as error:
        missing = ", ".join(name for name in known if name not in arguments)
        raise ValueError(f"{where}: {kind} needs {missing}") from error


def _when(given: Mapping[str, object], where: str) -> When:
    values = {name: _typed(value, _WHEN_FIELDS[name], f"{where}: {name}") for name, value in given.items()}
    try:
        return When(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _convert(value: object, declared: str, where: str) -> Any:
    """The value as the field of that declared type takes it."""
    if declared == "Reason":
        try:
            return Reason.of(_typed(value, str, where))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    if declared in ("Spread", "FloodOf"):
        return _member(Spread if declared == "Spread" else FloodOf, value, where)
    if declared == "bytes":
        return str(_typed(value, str, where)).encode()
    types: dict[str, type] = {"bool": bool, "float": float, "str": str}
    number = _typed(value, types.get(declared, int), where)
    if declared in ("int", "float", "int | None") and number < 0:
        raise ValueError(f"{where}: {value} is negative")
    return number


def _member(kind: type[Enum], value: object, where: str) -> Enum:
    try:
        return kind(value)
    except ValueError as error:
        raise ValueError(f"{where}: {value!r}; there are {', '.join(str(item.value) for item in kind)}") from error


def _typed(value: object, kind: type, where: str) -> Any:
    """The value, if it is of that kind; a whole number is a float too, a truth value is no number."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", list: "a list"}
        raise ValueError(f"{where}: {value!r} is not {names[kind]}")
    return value
