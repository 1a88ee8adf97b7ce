"""Numbers of the sensitivity tables in five characters, and letters for what is shared."""

from __future__ import annotations

import pytest

from hwc_onnx.report.sensitivity_table import milli, tied_letters


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (0.0, "0"),
        (4e-7, "0"),
        (5.1e-7, ".001"),
        (2.34e-5, ".023"),
        (9.96e-5, "0.10"),
        (3.14e-4, "0.31"),
        (9.9e-4, "0.99"),
        (1.234e-3, "1.2"),
        (0.0123, "12"),
        (0.987, "987"),
        (9.99, "9990"),
        (12.3, "12k"),
        (123.0, "0.1M"),
        (1e6, ">9M"),
    ],
)
def test_thousandths_keep_two_digits_in_five_characters(damage: float, text: str) -> None:
    assert milli(damage) == text and len(text) <= 5


def test_only_what_rows_share_has_a_letter() -> None:
    def row(unit: str, tied: list[str]) -> dict[str, object]:
        return {"cells": {"a8": {"unit": unit, "tied": tied}, "ch30": None}}

    payload = {
        "settings": [{"name": "a8", "kind": "activations"}, {"name": "ch30", "kind": "channels"}],
        "layers": [row("x", ["q"]), row("x", ["p"]), row("z", []), row("w", ["s"])],
    }
    assert tied_letters(payload) == {("activations", "x"): "A", ("activations", "w"): "B"}
