from __future__ import annotations

import pytest

from hwc_onnx.recovery.on_demand import OnDemand


def test_values_are_made_when_asked_for_and_the_oldest_leave() -> None:
    made: list[str] = []

    def make(key: str) -> bytes:
        made.append(key)
        return key.encode() * 10

    table = OnDemand(["a", "b", "c"], make, len, 25)
    assert list(table) == ["a", "b", "c"] and len(table) == 3 and "c" in table and "d" not in table
    assert made == []
    assert [table[key] for key in "abab"] == [b"a" * 10, b"b" * 10, b"a" * 10, b"b" * 10]
    assert made == ["a", "b"]
    assert table["c"] == b"c" * 10 and table["b"] == b"b" * 10
    assert made == ["a", "b", "c"]
    assert table["a"] == b"a" * 10
    assert made == ["a", "b", "c", "a"]
    with pytest.raises(KeyError):
        table["d"]


def test_a_value_above_the_limit_is_kept_until_the_next() -> None:
    made: list[str] = []
    table = OnDemand("ab", lambda key: made.append(key) or [key], lambda _: 100, 1)
    assert table["a"] is table["a"]
    assert table["b"] and table["a"] and made == ["a", "b", "a"]
