"""Quick values are frozen dataclasses like any other, whatever way they are made."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, asdict, dataclass, field, replace
from types import MappingProxyType

import pytest

from streampush.quick_values import quick_value

NONE: Mapping[str, str] = MappingProxyType({})


@quick_value(frozen=True, slots=True)
class Quick:
    """What is measured."""

    name: str
    payload: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: NONE, repr=False)
    tags: list[str] = field(default_factory=list, compare=False)
    number: int = 7


@dataclass(frozen=True, slots=True)
class Plain:
    """What it is measured against."""

    name: str
    payload: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: NONE, repr=False)
    tags: list[str] = field(default_factory=list, compare=False)
    number: int = 7


def test_it_has_the_fields_it_was_given_and_defaults_for_the_others() -> None:
    for made in (Quick("a", b"b"), Quick(payload=b"b", name="a"), Quick("a", b"b", NONE, [], 7)):
        assert (made.name, made.payload, made.headers, made.tags, made.number) == ("a", b"b", NONE, [], 7)
    assert Quick("a", b"b", {"c": "d"}, number=8).headers == {"c": "d"}


def test_a_factory_is_called_for_each() -> None:
    assert Quick("a", b"b").tags is not Quick("a", b"b").tags


def test_it_is_of_its_own_class_and_has_no_room_for_more() -> None:
    assert type(Quick("a", b"b")) is Quick
    assert not hasattr(Quick("a", b"b"), "__dict__")


def test_it_cannot_be_changed() -> None:
    value = Quick("a", b"b")
    with pytest.raises(FrozenInstanceError):
        value.number = 9  # type: ignore[misc]  # mypy knows it, too
    with pytest.raises(FrozenInstanceError):
        del value.number
    with pytest.raises((FrozenInstanceError, TypeError)):
        value.other = 9  # type: ignore[attr-defined]  # as above


def test_it_is_compared_hashed_and_shown_as_a_dataclass_is() -> None:
    assert Quick("a", b"b") == Quick("a", b"b")
    assert Quick("a", b"b") != Quick("a", b"c")
    one, other = Quick("a", b"b", number=1), Plain("a", b"b", number=1)
    assert repr(one) == repr(other).replace("Plain", "Quick")
    assert asdict(replace(one, headers={})) == asdict(replace(other, headers={}))
    assert hash(replace(one, headers=())) == hash(replace(other, headers=()))  # type: ignore[arg-type]  # something that has a hash


def test_replaced_copied_and_pickled_it_is_still_frozen() -> None:
    value = Quick("a", b"b", {"c": "d"})
    for same in (replace(value), copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert same == value
        with pytest.raises(FrozenInstanceError):
            same.number = 9


def test_a_field_too_few_or_too_many_is_refused_as_ever() -> None:
    with pytest.raises(TypeError, match="payload"):
        Quick("a")  # type: ignore[call-arg]  # that is the point
    with pytest.raises(TypeError, match="other"):
        Quick("a", b"b", other=1)  # type: ignore[call-arg]  # that is the point


def test_what_it_cannot_be_is_refused() -> None:
    with pytest.raises(TypeError, match="frozen"):
        quick_value(frozen=False, slots=True)

    class Busy:
        number: int = 0

        def __post_init__(self) -> None:
            """Would find the value frozen."""

    with pytest.raises(TypeError, match="__post_init__"):
        quick_value(frozen=True, slots=True)(Busy)

    class Named:
        number: int = field(default=0, kw_only=True)

    with pytest.raises(TypeError, match="plain fields"):
        quick_value(frozen=True, slots=True)(Named)
