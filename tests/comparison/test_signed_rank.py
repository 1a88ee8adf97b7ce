"""Wilcoxon's test by listing all signs, Holm's correction by hand, and what a wrong version of each would say."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata

from hwc_onnx.comparison.signed_rank import holm, signed_rank_p, smallest_p


def by_all_signs(differences: list[float]) -> float:
    """Share of the sign patterns whose sum of positive ranks is at least the one seen."""
    ranks = rankdata(np.abs(differences))
    seen = ranks[np.array(differences) > 0].sum()
    sums = [ranks[np.array(signs)].sum() for signs in product([True, False], repeat=len(ranks))]
    return float(np.mean([total >= seen - 1e-9 for total in sums]))


@pytest.mark.parametrize(
    "differences",
    [
        [0.1, 0.2, 0.3, 0.4, 0.5],
        [0.1, -0.2, 0.3, 0.4, 0.5],
        [0.1, 0.1, -0.1, 0.3],
        [-0.1, -0.2, 0.05],
        [0.02, 0.02, 0.02, -0.02, 0.02, 0.04],
    ],
)
def test_signed_rank_is_the_share_of_all_sign_patterns(differences: list[float]) -> None:
    base = [0.4] * len(differences)
    first = [0.4 + d for d in differences]
    assert signed_rank_p(first, base) == pytest.approx(by_all_signs(differences))
    assert signed_rank_p(first, base, "less") == pytest.approx(by_all_signs([-d for d in differences]))


def test_signed_rank_by_hand() -> None:
    # ranks 1, 2, 3 with only the smallest negative: sums of at least 5 come from {2,3} and {1,2,3}, 2 of 8 patterns
    assert signed_rank_p([0.3, 0.5, 0.7], [0.4, 0.3, 0.4]) == pytest.approx(2 / 8)


def test_signed_rank_one_sided_is_not_two_sided_and_uses_the_pairs() -> None:
    first, second = [0.11, 0.32, 0.53, 0.74, 0.95], [0.10, 0.30, 0.50, 0.70, 0.90]
    assert signed_rank_p(first, second) == smallest_p(5) == 1 / 32
    assert signed_rank_p(first, second, "less") == 1.0
    assert signed_rank_p(first, second[::-1]) > 0.3  # the same values without their partners


def test_signed_rank_equal_pairs_are_left_out() -> None:
    assert signed_rank_p([0.3, 0.3], [0.3, 0.3]) == 1.0
    assert signed_rank_p([0.3, 0.5, 0.6], [0.3, 0.4, 0.4]) == pytest.approx(1 / 4)
    assert signed_rank_p([0.1 + 0.2], [0.3]) == 1.0  # the last bit of a sum is no difference


def test_signed_rank_of_many_tied_pairs_is_never_below_the_smallest() -> None:
    assert signed_rank_p([0.2] * 60, [0.1] * 60) >= smallest_p(60)


def test_holm_by_hand() -> None:
    # sorted: 0.01 x 3, 0.03 x 2, 0.04 x 1 but not below the one before
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_is_neither_bonferroni_nor_without_order() -> None:
    values = [0.01, 0.04, 0.03]
    bonferroni = [min(3 * p, 1.0) for p in values]
    unordered = [0.03, 0.04, 0.06]  # the largest p times 1, although a smaller one was corrected to more
    assert holm(values) != pytest.approx(bonferroni) and holm(values) != pytest.approx(unordered)
