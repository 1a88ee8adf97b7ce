"""Area, saving at a budget and hypervolume against numbers worked out by hand, and against wrong versions of themselves."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.comparison.curves import area, best_at, hypervolume, reference_drop

CURVE = [[2.0, 0.0], [4.0, 0.3], [7.0, 0.5]]


def test_best_at_holds_until_the_next_step() -> None:
    assert [best_at(CURVE, spent) for spent in (0, 3.9, 4, 6.99, 7, 100)] == [0.0, 0.0, 0.3, 0.3, 0.5, 0.5]
    assert best_at([], 10) == 0.0


def test_area_is_the_one_by_hand() -> None:
    # 0 up to 4, then 0.3 for 3, then 0.5 for 3, over 10
    assert area(CURVE, 10) == pytest.approx((4 * 0.0 + 3 * 0.3 + 3 * 0.5) / 10)
    assert area(CURVE, 5) == pytest.approx(0.3 / 5)
    assert area([], 10) == 0.0
    assert area([[0.0, 0.4]], 10) == pytest.approx(0.4)


def test_area_of_straight_lines_between_the_points_would_be_another() -> None:
    spent, saving = np.array([0.0, 2.0, 4.0, 7.0, 10.0]), np.array([0.0, 0.0, 0.3, 0.5, 0.5])
    assert abs(np.trapezoid(saving, spent) / 10 - area(CURVE, 10)) > 0.05


def test_hypervolume_is_the_one_by_hand() -> None:
    # limit 1: reference (1, 2). (0.5, 1) spans 0.5 x 1, (0.7, 0.4) adds 0.3 x 0.6, the other two add nothing
    points = [(0.7, 0.4), (0.5, 1.0), (0.6, 1.5), (0.4, 2.5), (1.1, 0.0)]
    assert hypervolume(points, 1.0) == pytest.approx((0.5 * 1.0 + 0.3 * 0.6) / 2.0)
    assert hypervolume([], 1.0) == 0.0


def test_hypervolume_counts_no_area_twice() -> None:
    points = [(0.7, 0.4), (0.5, 1.0)]
    summed = sum((1.0 - energy) * (2.0 - drop) for energy, drop in points) / 2.0
    assert hypervolume(points, 1.0) < summed


def test_hypervolume_is_the_share_of_random_places_that_a_plan_beats() -> None:
    rng = np.random.default_rng(0)
    points = [(float(e), float(d)) for e, d in rng.uniform((0.2, -0.5), (1.2, 3.0), (12, 2))]
    places = rng.uniform((0.0, 0.0), (1.0, 3.0), (40_000, 2))
    beaten = np.zeros(len(places), bool)
    for energy, drop in points:
        beaten |= (places[:, 0] >= energy) & (places[:, 1] >= max(drop, 0.0))
    assert hypervolume(points, 1.5) == pytest.approx(beaten.mean(), abs=0.01)


def test_negative_drop_earns_nothing_and_a_limit_of_zero_has_a_reference() -> None:
    assert hypervolume([(0.5, -3.0)], 1.0) == hypervolume([(0.5, 0.0)], 1.0) == pytest.approx(0.5)
    assert reference_drop(0.0) == 0.1
    assert hypervolume([(0.5, 0.05)], 0.0) == pytest.approx(0.25)
