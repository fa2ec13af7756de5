"""The configuration file that `streampush init` writes: every setting with its default, unit, range and reason.

What is not set stands there as a comment, so that the file is the reference too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from typing import Any, get_type_hints

from streampush.config import ApnsAppConfig, Config, KeyConfig
from streampush.loading import describe_range

_HEAD = """\
# Settings of streampush. A line like "# name = value" shows a default: take the "# " away to change it.
# Relative paths count from the directory of this file. The environment wins over this file, as in
# STREAMPUSH_SESSION__MAX_FRAME=65536, and options win over the environment. `streampush check FILE` says what is wrong.
"""

_SECTION_NOTES = {
    "apns": "Pushes to devices that are away, through Apple: on if there is an [[apns.apps]] below.",
    "admission": "Who may connect; asked before any TLS work is paid for.",
    "delivery": 'In patterns "*" stands for any run of characters, {device} and {user} for the device\'s own ids.',
    "heartbeat": "Announced to every client when it connects.",
    "reconnect": "Announced to every client when it connects.",
    "rest": "Keys are [[rest.keys]] below.",
}

Active = Mapping[str, Mapping[str, Any]]
"""Values to set, by section and key."""


def render(active: Active, keys: Iterable[KeyConfig] = (), publishers: Mapping[str, Iterable[str]] | None = None) -> str:
    """The file's text. `publishers`: the patterns that each may publish to."""
    hints = get_type_hints(Config)
    parts = [_HEAD]
    for field in fields(Config):
        if field.name in ("file", "publishers"):
            continue
        parts.append(_section(field.name, hints[field.name], active.get(field.name, {})))
        if field.name == "rest":
            parts.extend(_key(key) for key in keys)
        if field.name == "apns":
            parts.append(_app())
    for name, patterns in (publishers or {}).items():
        note = "# What the publisher certificate of this name may publish to.\n"
        parts.append(f"{note}[publishers.{_text(name)}]\npublish = {_value(tuple(patterns))}\n")
    return "\n".join(parts)


def _section(name: str, kind: type[Any], active: Mapping[str, Any]) -> str:
    lines = [f"[{name}]"]
    if name in _SECTION_NOTES:
        lines.append(f"# {_SECTION_NOTES[name]}")
    for field in fields(kind):
        if field.metadata:
            lines += _setting(field, active)
    return "\n".join(lines) + "\n"


def _setting(field: Field[Any], active: Mapping[str, Any]) -> list[str]:
    bounds = describe_range(field)
    unit = field.metadata.get("unit", "")
    limits = f"{unit}, {bounds}" if unit and bounds else unit or bounds
    why = f"# {field.metadata['why']}" + (f" ({limits})" if limits else "")
    if field.name in active:
        return ["", why, f"{field.name} = {_value(active[field.name])}"]
    return ["", why, f"# {field.name} = {_value(field.default)}"]


def _key(key: KeyConfig) -> str:
    lines = ["[[rest.keys]]"]
    for field in fields(KeyConfig):
        lines += [f"# {field.metadata['why']}", f"{field.name} = {_value(getattr(key, field.name))}"]
    return "\n".join(lines) + "\n"


def _app() -> str:
    """The settings of an app of Apple's, to be copied: there is none yet."""
    lines = ["# An app of Apple's is a table like this one, without the #; docs/apns.md tells what to fetch at Apple's.", "#"]
    lines.append("#   [[apns.apps]]")
    for field in fields(ApnsAppConfig):
        lines += [f"#   {line}".rstrip() for line in _setting(field, {field.name: field.default})]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return repr(value)


def _text(value: str) -> str:
    """A TOML basic string: JSON's escapes are among TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
