"""Limits beside accuracy: relative excesses, and words that say by how much."""

from __future__ import annotations

import pytest

from hwc_onnx.limits import Limits

FIGURES = {"energy": 0.5, "latency": 2e-3, "bytes": 1500.0, "memory": 900.0}


def test_excesses_are_shares_of_the_limits_that_were_given() -> None:
    found = Limits(energy=0.4, bytes=2000, memory=900).excesses(FIGURES)
    assert found == pytest.approx({"energy": 0.25, "bytes": -0.25, "memory": 0.0})
    assert Limits().excesses({}) == {}


def test_missed_limits_are_said_with_both_figures_and_the_distance() -> None:
    said = Limits(energy=0.4, latency=1e-3, bytes=2000, memory=600).missed(FIGURES)
    assert len(said) == 3
    assert "50.0%" in said[0] and "40.0%" in said[0] and "25.0% too much" in said[0]
    assert "0.002 s" in said[1] and "100.0% too much" in said[1]
    assert "900 bytes" in said[2] and "600" in said[2] and "50.0% too much" in said[2]


def test_a_figure_that_nobody_took_is_an_error_not_a_kept_limit() -> None:
    with pytest.raises(KeyError):
        Limits(memory=1.0).excesses({"energy": 0.1})
