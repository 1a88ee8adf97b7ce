"""From rows to a verdict: quartiles, who wins, and that too few seeds are said to be too few."""

from __future__ import annotations

import pytest

from hwc_onnx.comparison.contest import Contest
from hwc_onnx.comparison.summary import outcome, quartiles, summarize
from tests.comparison.made_rows import row, rows

SAVINGS = {
    "composite": [0.50, 0.52, 0.54, 0.56, 0.58, 0.60],
    "knapsack": [0.51, 0.53, 0.56, 0.57, 0.60, 0.61],
    "tpe": [0.50, 0.52, 0.54, 0.56, 0.58, 0.60],
    "random": [0.30, 0.35, 0.33, 0.40, 0.31, 0.38],
}


def contest(*samplers: str, starts: tuple[str, ...] = ("seeds",), seeds: int = 6) -> Contest:
    return Contest(samplers, starts, seeds, 12)  # type: ignore[arg-type]


def test_quartiles_are_interpolated() -> None:
    assert quartiles([1.0, 2.0, 3.0, 5.0]) == {"median": 2.5, "q1": 1.75, "q3": 3.5}


def test_verdict_begins_with_whom_the_agent_loses_to() -> None:
    summary = summarize(rows(SAVINGS), contest(*SAVINGS))
    assert summary["verdict"][0].startswith("composite loses to knapsack, ties with tpe, wins against random (start seeds; ")
    assert {one["against"]: one["outcome"] for one in summary["comparisons"]} == {
        "knapsack": "loses", "tpe": "ties", "random": "wins",
    }  # fmt: skip


def test_what_passes_on_the_holdout_decides_and_not_what_the_search_samples_flatter() -> None:
    flattered = [{**one, "best_reduction_vs_int8": 0.99} if one["sampler"] == "random" else one for one in rows(SAVINGS)]
    refused = [{**one, "delivered_reduction_vs_int8": 0.0} if one["sampler"] == "knapsack" else one for one in flattered]
    assert summarize(refused, contest(*SAVINGS))["verdict"][0].startswith(
        "composite loses to none, ties with tpe, wins against knapsack and random (start seeds; medians of the saving that passes"
    )


def test_tests_follow_the_pairs_and_are_corrected_over_all_comparisons() -> None:
    found = {one["against"]: one for one in summarize(rows(SAVINGS), contest(*SAVINGS))["comparisons"]}
    assert found["random"]["p_better"] == 1 / 64 and found["random"]["p_better_holm"] == pytest.approx(3 / 64)
    assert found["random"]["p_worse"] == 1.0
    assert found["knapsack"]["p_worse"] == 1 / 64 and found["knapsack"]["p_better"] == 1.0
    assert found["tpe"]["p_better"] == found["tpe"]["p_worse"] == 1.0
    assert (found["knapsack"]["seeds_better"], found["knapsack"]["seeds_worse"]) == (0, 6)
    assert found["knapsack"]["difference_of_medians"] == pytest.approx(0.55 - 0.565)
    assert found["knapsack"]["median_difference"] == pytest.approx(-0.01)


def test_verdict_says_what_is_significant() -> None:
    said = summarize(rows(SAVINGS), contest(*SAVINGS))["verdict"][-1]
    assert "composite is worse than knapsack (start seeds, p = 0.047); better than random" in said


def test_verdict_says_what_the_agents_brought_and_begins_with_it_where_it_is_nothing() -> None:
    summary = summarize(rows(SAVINGS), contest(*SAVINGS))
    assert summary["verdict"][-2].startswith("composite, start seeds: plans that the agents proposed saved 13.8 percentage points")
    idle = [{**one, "gained": {"rollout": one["best_reduction_vs_int8"]}} for one in rows(SAVINGS)]
    assert "plans that the agents proposed saved nothing" in summarize(idle, contest(*SAVINGS))["verdict"][0]


def test_verdict_says_that_few_seeds_prove_nothing() -> None:
    few = {name: values[:2] for name, values in SAVINGS.items()}
    summary = summarize(rows(few), contest(*few, seeds=2))
    assert summary["smallest_p"] == 0.25
    assert "no difference can be significant: with 2 seeds the smallest p is 2^-2 = 0.25" in summary["verdict"][-1]


def test_first_sampler_is_the_reference_where_the_agent_is_missing_and_one_alone_is_said_to_be_alone() -> None:
    savings = {"tpe": SAVINGS["tpe"], "random": SAVINGS["random"]}
    assert summarize(rows(savings), contest(*savings))["verdict"][0].startswith("tpe loses to none, wins against random")
    alone = summarize(rows({"tpe": SAVINGS["tpe"]}), contest("tpe"))
    assert alone["comparisons"] == [] and "nothing to compare" in alone["verdict"][0]


def test_starts_are_compared_with_their_own_kind_and_each_has_its_sentence() -> None:
    savings = {"composite": [0.5, 0.6], "random": [0.3, 0.4]}
    cold = {"composite": [0.2, 0.1], "random": [0.3, 0.4]}
    summary = summarize([*rows(savings), *rows(cold, "cold")], contest(*savings, starts=("seeds", "cold"), seeds=2))
    assert [line.split(" (")[0] for line in summary["verdict"][:2]] == [
        "composite loses to none, wins against random", "composite loses to random",
    ]  # fmt: skip
    assert [one["start"] for one in summary["comparisons"]] == ["seeds", "cold"]


def test_strategy_has_its_third_its_band_and_what_the_holdout_says() -> None:
    made = [
        row("tpe", 0, 0.4),
        row("tpe", 1, 0.6, holdout_drop_points=1.5, holdout_kept=False),
        row("tpe", 2, 0.0, drop_points=None, holdout_drop_points=None, holdout_kept=None, origin=None, curve=[]),
    ]
    (one,) = summarize(made, contest("tpe", seeds=3))["strategies"]
    assert one["reduction"]["median"] == 0.4 and one["reduction_at_third"]["median"] == 0.0
    assert one["band"]["median"] == [0.0] * 6 + [0.4] * 7
    assert one["band"]["q3"][-1] == pytest.approx(0.5)
    assert (one["judged"], one["holdout_kept"]) == (2, 1)
    assert one["holdout_drop_points"]["median"] == pytest.approx(1.15)


def test_medians_within_a_tenth_of_a_point_tie() -> None:
    assert [outcome(gap) for gap in (0.0009, -0.0009, 0.0011, -0.0011)] == ["ties", "ties", "wins", "loses"]
