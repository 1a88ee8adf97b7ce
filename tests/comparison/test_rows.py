"""A row is cut at the budget: a trial that ends beyond it does not count, in evaluations or in images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwc_onnx.comparison.contest import folder_name
from hwc_onnx.comparison.rows import Delivered, cut, row_of
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.problem import Outcome
from tests.search.synthetic import SyntheticProblem

PROBLEM = SyntheticProblem(layers=3, images=100, limit_points=1.0)  # preparation: 200 images, 2 equivalents


def record(number: int, energy: float, images: int = 100, drop: float = 0.2, **changes: object) -> Record:
    choices = PROBLEM.start.copy()
    choices[0] = number
    outcome = Outcome(energy, drop, 0.1, 0.01, n_samples=images, complete=images == 100, image_forwards=images)
    return replace(Record(number, choices, outcome, "rollout", True, 1.0), **changes)  # type: ignore[arg-type]


def history(*records: Record) -> History:
    made = History(PROBLEM.space, PROBLEM.limit_points)
    for one in records:
        made.append(one)
    return made


def test_cut_counts_preparation_and_stops_before_the_trial_that_does_not_fit() -> None:
    found = cut(history(record(0, 1.0), record(1, 0.7), record(2, 0.5), record(3, 0.4)), PROBLEM, 5)
    assert (found.spent.evaluations, found.spent.image_forwards, found.spent.equivalent) == (3, 500, 5.0)
    assert found.curve == [[3.0, 0.0], [4.0, pytest.approx(0.3)], [5.0, 0.5]]
    assert found.best is not None and found.best.outcome.energy == 0.5


def test_cut_by_evaluations_where_candidates_stop_early() -> None:
    early = [record(n, 0.9 - 0.1 * n, images=10, drop=5.0) for n in range(1, 7)]
    found = cut(history(record(0, 1.0), *early), PROBLEM, 5)
    assert (found.spent.evaluations, found.spent.equivalent) == (5, 5.0)  # by images alone all seven would fit
    assert found.curve == [[3.0, 0.0]] and found.points == [(1.0, 0.2)]


def test_cut_repeats_are_free_and_refused_plans_are_no_improvement() -> None:
    free = record(1, 0.7, counted=False)
    found = cut(history(record(0, 1.0), record(1, 0.7), free, record(2, 0.3, drop=1.4)), PROBLEM, 5)
    assert found.spent.evaluations == 3 and found.best is not None and found.best.outcome.energy == 0.7
    assert found.points == [(1.0, 0.2), (0.7, 0.2), (0.3, 1.4)]


def test_row_without_an_accepted_plan_saves_nothing_and_has_no_drops() -> None:
    found = cut(history(record(0, 1.0, drop=3.0)), PROBLEM, 5)
    made = row_of(("tpe", "cold", 0), found, 5, 1.0, metric="top1", seconds=1.0, stopped_by="trials", holdout_drop=None, delivered=None)
    assert (made.best_reduction_vs_int8, made.area, made.curve) == (0.0, 0.0, [])
    assert (made.delivered_reduction_vs_int8, made.delivered_drop_points, made.delivered_origin) == (0.0, None, None)
    assert made.drop_points is made.holdout_drop_points is made.holdout_kept is made.origin is None


def test_row_holdout_drop_of_exactly_the_limit_keeps_it() -> None:
    found = cut(history(record(0, 1.0), record(1, 0.6)), PROBLEM, 5)
    kept = [
        row_of(("tpe", "cold", 0), found, 5, 1.0, metric="top1", seconds=1.0, stopped_by="trials", holdout_drop=drop, delivered=Delivered(found.history.records[0], 0.9))
        for drop in (1.0, 1.01)
    ]
    assert [row.holdout_kept for row in kept] == [True, False]
    assert kept[0].delivered_reduction_vs_int8 == 0.0 and kept[0].delivered_drop_points == 0.9
    assert kept[0].hypervolume == pytest.approx(0.4 * 1.8 / 2.0)
    assert np.isclose(kept[0].area, 0.4 * 1 / 5)


def test_folders_of_studies_differ_for_names_that_look_alike() -> None:
    names = [folder_name(*entry) for entry in (("a:b", "cold"), ("a_b", "cold"), ("a_b", "seeds"), ("a/b", "cold"))]
    assert len(set(names)) == 4 and all("/" not in name and ":" not in name for name in names)
    assert folder_name("tpe", "seeds") == "tpe.seeds"


def test_gained_divides_the_saving_among_those_who_proposed_the_improvements() -> None:
    policy, refused = record(2, 0.6, origin="policy"), record(4, 0.1, drop=3.0, origin="policy")
    found = cut(history(record(0, 1.0, origin="seed"), record(1, 0.7), policy, record(3, 0.8), refused), PROBLEM, 9)
    assert found.gained == {"seed": 0.0, "rollout": pytest.approx(0.3), "policy": pytest.approx(0.1)}
    assert sum(found.gained.values()) == pytest.approx(found.curve[-1][1])
    last = {found.best.origin: found.curve[-1][1]} if found.best is not None else {}  # a broken twin: all to the last
    assert last != found.gained
