"""A checked Config from a TOML file, the environment and options; each later one wins.

    file         the sections and keys of config.Config; `[[rest.keys]]`, `[[apns.apps]]`, `[publishers.NAME]`;
                 `store = "redis://…"` in place of the section [store]
    environment  STREAMPUSH_<SECTION>__<KEY>=value, as in STREAMPUSH_SESSION__MAX_FRAME=65536
    options      "section.key=value"

A text value of the last two is a TOML value, or plain text for a text setting, or names with commas between for a list.
Relative paths, wherever they are given, count from the TOML file's directory (without a file: from the current one).
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from typing import Any, get_args, get_origin, get_type_hints

from streampush.config import ApnsAppConfig, Config, KeyConfig, Problem, PublisherConfig
from streampush.config_files import check_files
from streampush.config_rules import check_rules, envelope_room, fd_budget, is_loopback
from streampush.errors import ConfigError

__all__ = ["check_files", "envelope_room", "fd_budget", "is_loopback", "load_config", "problems", "read_config", "refuse"]

PREFIX = "STREAMPUSH_"
_SECTIONS = tuple(field.name for field in fields(Config) if field.name != "file")
_TABLES: dict[Any, str] = {KeyConfig: "rest.keys", ApnsAppConfig: "apns.apps"}
"""Settings that are lists of tables, by what a row is read as."""


def load_config(path: str | None, environ: Mapping[str, str], overrides: Sequence[str] = ()) -> Config:
    """The settings in force. Raises ConfigError for the first error; files that settings name are not opened."""
    config, found = read_config(path, environ, overrides)
    refuse(found)
    return config


def refuse(found: Iterable[Problem]) -> None:
    """Raises ConfigError for the first error among problems, and says how many more there are; warnings do not count."""
    errors = [problem for problem in found if problem.severity == "error"]
    if errors:
        first = errors[0]
        more = f" (and {len(errors) - 1} more, see `streampush check`)" if len(errors) > 1 else ""
        raise ConfigError(first.file, first.key, first.text + more)


def problems(path: str | None, environ: Mapping[str, str], overrides: Sequence[str] = ()) -> list[Problem]:
    """Everything wrong with the settings and with the files that they name, errors and warnings. Raises as `read_config`."""
    config, found = read_config(path, environ, overrides)
    return found + check_files(config)


def read_config(path: str | None, environ: Mapping[str, str], overrides: Sequence[str] = ()) -> tuple[Config, list[Problem]]:
    """The settings with everything wrong about them; a setting that is wrong has its default. Opens only `path`.

    Raises ConfigError if that cannot be read or is not TOML: whatever else is wrong would follow from it.
    """
    reader = _Reader(path)
    reader.take_file()
    reader.take_environment(environ)
    reader.take_overrides(overrides)
    return reader.finish()


@dataclass(frozen=True, slots=True)
class _Given:
    """A value and where it came from, in words for messages. `is_text`: from outside TOML, still to be read as its type."""

    value: Any
    file: str
    key: str
    is_text: bool = False


class _Wrong(Exception):
    """A value that its setting cannot take; `below` is the rest of the key, if it is deep in a table."""

    def __init__(self, text: str, below: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.below = below


class _Reader:
    def __init__(self, path: str | None) -> None:
        self._path = path
        self._file = path or "(defaults)"
        self._base = os.path.dirname(os.path.abspath(path)) if path else os.getcwd()
        self._given: dict[tuple[str, ...], _Given] = {}
        self._found: list[Problem] = []

    def _error(self, file: str, key: str, text: str) -> None:
        self._found.append(Problem("error", file, key, text))

    # ---------------------------------------------------------------------------------------------------------------- sources

    def take_file(self) -> None:
        if self._path is None:
            return
        try:
            with open(self._path, "rb") as file:
                tree = tomllib.load(file)
        except OSError as error:
            raise ConfigError(self._file, "", f"cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(self._file, "", f"is not TOML: {_one_line(error)}") from error
        for section, table in tree.items():
            if section == "store" and isinstance(table, str):  # the short form
                table = {"backend": "redis", "url": table}
            self._take_table(section, table)

    def _take_table(self, section: str, table: Any) -> None:
        if section not in _SECTIONS:
            self._error(self._file, section, f"unknown section{_did_you_mean(section, _SECTIONS)}")
        elif not isinstance(table, dict):
            self._error(self._file, section, f"must be a section, [{section}]")
        elif section == "publishers":
            for name, row in table.items():
                if isinstance(row, dict):
                    for key, value in row.items():
                        self._take(("publishers", name, key), _Given(value, self._file, f"publishers.{name}.{key}"))
                    self._given.setdefault(("publishers", name), _Given(None, self._file, f"publishers.{name}"))
                else:
                    self._error(self._file, f"publishers.{name}", f"must be a section, [publishers.{name}]")
        else:
            for key, value in table.items():
                self._take((section, key), _Given(value, self._file, f"{section}.{key}"))

    def take_environment(self, environ: Mapping[str, str]) -> None:
        for variable in sorted(environ):
            if variable.startswith(PREFIX) and "__" in variable:  # a platform may set names of its own with our prefix
                path = tuple(variable.removeprefix(PREFIX).lower().split("__"))
                self._take(path, _Given(environ[variable], "environment", variable, is_text=True))

    def take_overrides(self, overrides: Sequence[str]) -> None:
        for override in overrides:
            key, separator, value = override.partition("=")
            key = key.strip()
            section, _, rest = key.partition(".")
            if not separator or not rest:
                self._error("options", "", f"{key!r} is not of the form section.key=value")
                continue
            path = (section, *rest.rsplit(".", 1)) if section == "publishers" else (section, rest)
            self._take(path, _Given(value, "options", key, is_text=True))

    def _take(self, path: tuple[str, ...], given: _Given) -> None:
        section = path[0]
        if section not in _SECTIONS:
            self._error(given.file, given.key, f"unknown section {section!r}{_did_you_mean(section, _SECTIONS)}")
            return
        known = [field.name for field in fields(_section_type(section))]
        if len(path) != (3 if section == "publishers" else 2):
            self._error(given.file, given.key, f"unknown key in section {section!r}")
        elif path[-1] not in known:
            self._error(given.file, given.key, f"unknown key{_did_you_mean(path[-1], known)}")
        else:
            self._given[path] = given

    # ----------------------------------------------------------------------------------------------------------------- values

    def finish(self) -> tuple[Config, list[Problem]]:
        sections = {section: self._section(_section_type(section), (section,)) for section in _SECTIONS if section != "publishers"}
        names = {path[1]: None for path in self._given if path[0] == "publishers"}
        publishers = {name: self._section(PublisherConfig, ("publishers", name)) for name in names}
        config = Config(file=self._file, publishers=publishers, **sections)
        origin = {".".join(path): given for path, given in self._given.items()}
        for problem in check_rules(config):
            given = origin.get(problem.key)
            self._found.append(replace(problem, file=given.file, key=given.key) if given else problem)
        return config, self._found

    def _section(self, kind: type[Any], path: tuple[str, ...]) -> Any:
        values: dict[str, Any] = {}
        hints = get_type_hints(kind)
        for field in fields(kind):
            given = self._given.get((*path, field.name))
            if given is None:
                if field.metadata.get("unit") == "file" and field.default:
                    values[field.name] = os.path.normpath(os.path.join(self._base, str(field.default)))
                continue
            try:
                raw = _from_text(given.value, hints[field.name]) if given.is_text else given.value
                values[field.name] = self._value(raw, hints[field.name], field)
            except _Wrong as wrong:
                self._error(given.file, given.key + wrong.below, wrong.text)
        return kind(**values)

    def _value(self, raw: Any, hint: Any, field: Field[Any]) -> Any:
        if get_origin(hint) is tuple:
            return self._list(raw, get_args(hint)[0])
        value = _scalar(raw, hint)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            _check_range(value, field)
        allowed = field.metadata.get("allowed")
        if allowed and value not in allowed:
            raise _Wrong(f"{value!r}, allowed are {describe_range(field)}")
        unit = field.metadata.get("unit")
        if unit == "file" and value:
            return os.path.normpath(os.path.join(self._base, value))
        return value.lower() if unit == "hex" else value

    def _list(self, raw: Any, element: Any) -> tuple[Any, ...]:
        if not isinstance(raw, list):
            raise _Wrong(f"must be a list, not {_type_name(raw)}")
        if element not in _TABLES:
            return tuple(_scalar(item, element, f"[{number}]") for number, item in enumerate(raw))
        return tuple(self._row(element, row, f"[{number}]") for number, row in enumerate(raw))

    def _row(self, kind: Any, row: Any, where: str) -> Any:
        if not isinstance(row, dict):
            raise _Wrong(f"must be a table, [[{_TABLES[kind]}]]", where)
        hints = get_type_hints(kind)
        known = {field.name: field for field in fields(kind)}
        values: dict[str, Any] = {}
        for name, raw in row.items():
            if name not in known:
                raise _Wrong(f"unknown key{_did_you_mean(name, known)}", f"{where}.{name}")
            try:
                values[name] = self._value(raw, hints[name], known[name])
            except _Wrong as wrong:
                raise _Wrong(wrong.text, f"{where}.{name}{wrong.below}") from wrong
        return kind(**values)


def _section_type(section: str) -> type[Any]:
    if section == "publishers":
        return PublisherConfig
    kind: type[Any] = get_type_hints(Config)[section]
    return kind


def _from_text(text: str, hint: Any) -> Any:
    """The value that the text of an environment variable or an option stands for."""
    if hint is str:
        return text
    if get_origin(hint) is tuple and not text.lstrip().startswith("["):
        return [item for item in (part.strip() for part in text.split(",")) if item]
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # of the wrong type then, which is said where types are checked


def _scalar(raw: Any, hint: Any, below: str = "") -> Any:
    if hint is float and type(raw) is int:
        return float(raw)
    if type(raw) is not hint:
        raise _Wrong(f"must be {_TYPE_NAMES[hint]}, not {_shown(raw, hint)}", below)
    if hint is str and "\x00" in raw:
        raise _Wrong("must not contain a NUL character", below)
    return raw


def _check_range(value: float, field: Field[Any]) -> None:
    low, high, unit = field.metadata.get("low"), field.metadata.get("high"), field.metadata.get("unit", "")
    if low is None or high is None or low <= value <= high:  # a NaN is in no range
        return
    shown = f"port {value}" if unit == "port" else f"{value} {unit}"
    raise _Wrong(f"{shown}, allowed are {describe_range(field)}")


def describe_range(field: Field[Any]) -> str:
    """The allowed values of a setting for people, empty if it is free."""
    allowed = field.metadata.get("allowed")
    if allowed:
        return ", ".join(filter(None, allowed))
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is None or high is None:
        return ""
    return f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


_TYPE_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "a table",
}


def _type_name(raw: Any) -> str:
    return _TYPE_NAMES.get(type(raw), type(raw).__name__)


def _shown(raw: Any, hint: Any) -> str:
    """A value of the wrong type for people; only its type where text belongs, as that may be a secret without its quotes."""
    if hint is str or not isinstance(raw, (int, float)):
        return _type_name(raw)
    return str(raw).lower()  # as TOML writes it


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
