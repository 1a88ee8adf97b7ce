"""Figures carry a unit that fits their size."""

from __future__ import annotations

import pytest

from hwc_onnx.report import quantities


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (quantities.energy(950.0), "950 pJ"),
        (quantities.energy(1234.5), "1.234 nJ"),
        (quantities.energy(3.9e7), "39 uJ"),
        (quantities.energy(2.5e12), "2.5 J"),
        (quantities.energy(0.25), "0.25 pJ"),
        (quantities.energy(2.0e6, "normalised"), "2M MAC"),
        (quantities.power(0.02), "20 uW"),
        (quantities.exact(1806336.0), "1806336"),
        (quantities.exact(0.123456789), "0.1234568"),
        (quantities.latency(0.0042), "4.2 ms"),
        (quantities.latency(2e-10), "0.2 ns"),
        (quantities.duration(59.6), "1 min 00 s"),
        (quantities.duration(3725.0), "1 h 02 min"),
        (quantities.size(999), "999 B"),
        (quantities.size(1_095_000), "1.095 MB"),
        (quantities.count(31_000_000), "31M"),
        (quantities.percent(0.6049), "60.5%"),
        (quantities.change(0.61), "-61.0%"),
        (quantities.change(-0.5), "+50.0%"),
        (quantities.points(-0.004), "-0.00"),
        (quantities.metric_value("top1", 0.9321), "93.21%"),
        (quantities.metric_value("sqnr", 31.41592), "31.416 dB"),
    ],
)
def test_figure_is_written_as_expected(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (8.06e6, "pJ", (1e3, "nJ")),
        (99.0, "pJ", (1.0, "pJ")),
        (2.0e5, "normalised", (1e3, "k MAC")),
        (50.0, "normalised", (1.0, "MAC")),
    ],
)
def test_scale_leaves_three_digits_before_the_point(value: float, unit: str, expected: tuple[float, str]) -> None:
    assert quantities.scale_of(value, unit) == expected
