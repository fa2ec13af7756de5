"""Ids by the rule of docs/protocol.md section 2.4."""

import pytest

from streampush.protocol.terms import is_id


@pytest.mark.parametrize("text", ["a", "phone-1", "Alice@example.org", "a.b_c~d", "x" * 128])
def test_ids(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize("text", ["", "x" * 129, "a b", "a/b", "a:b", "a\n", "é", "a\0"])
def test_no_ids(text: str) -> None:
    assert not is_id(text)
