"""One row of a comparison: a search cut at the common budget, in plain values for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hwc_onnx.comparison.curves import area, hypervolume
from hwc_onnx.search.budget import Spent
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.problem import Problem

WITHIN = 1e-9
"""A trial that ends exactly at the budget counts, whatever the last bit of the division."""


@dataclass(frozen=True)
class Cut:
    """The part of a search that lies within the budget.

    `history` has its trials; `best` is the accepted record of least energy, None where nothing was accepted; `curve` holds [evaluation-equivalents,
    saving] at each improvement; `gained` what of the saving whose proposals brought, by origin; `points` holds (energy as a share of the INT8 baseline's, drop in points) of every plan
    that was measured on all search samples.
    """

    history: History
    spent: Spent
    best: Record | None
    curve: list[list[float]]
    gained: dict[str, float]
    points: list[tuple[float, float]]


def cut(history: History, problem: Problem, budget: int) -> Cut:
    """The trials up to the last one that ends within `budget` evaluation-equivalents."""
    kept = History(history.space, history.limit_points)
    spent = Spent.of(kept, problem.setup_forwards, problem.search_size)
    curve: list[list[float]] = []
    for record in history.records:
        images = record.outcome.image_forwards if record.counted else 0
        after = spent.after(record.counted, images, problem.search_size)
        if after.equivalent > budget + WITHIN:
            break
        before, spent = kept.best, after
        kept.append(record)
        if kept.best is not before and kept.best is not None:
            curve.append([spent.equivalent, max(1.0 - kept.best.outcome.energy, 0.0)])
    points = [(r.outcome.energy, r.outcome.drop_points) for r in kept.measured() if r.outcome.complete]
    return Cut(kept, spent, kept.best, curve, kept.gained(), points)


@dataclass(frozen=True)
class Delivered:
    """The plan that `compress` would have written: the last one that the gate lets pass on the holdout (`gate.py`).

    `drop_points` is its drop there.
    """

    record: Record
    drop_points: float

    @property
    def reduction(self) -> float:
        """Its saving, a share of the INT8 baseline's energy."""
        return max(1.0 - self.record.outcome.energy, 0.0)


@dataclass(frozen=True)
class Row:
    """One search. Savings are shares of the INT8 baseline's energy; drops are points, positive is worse.

    `drop_points` is the best plan's drop on the search samples, `holdout_drop_points` on samples that no search saw;
    both, `origin` (who proposed it) and `holdout_kept` are None where nothing was accepted. `gained` divides
    `best_reduction_vs_int8` among the origins of the plans that brought it. `delivered_*` are of the plan that `compress` would write
    (`Delivered`): a saving of 0 and None where none passes, since the INT8 baseline is judged next. `seconds` is the time of the
    search alone. `area` and `hypervolume`: see `curves`.
    """

    sampler: str
    start: str
    seed: int
    evaluations: int
    image_forwards: int
    equivalents: float
    seconds: float
    stopped_by: str
    metric: str
    limit_points: float
    best_reduction_vs_int8: float
    drop_points: float | None
    holdout_drop_points: float | None
    holdout_kept: bool | None
    delivered_reduction_vs_int8: float
    delivered_drop_points: float | None
    delivered_origin: str | None
    origin: str | None
    gained: dict[str, float]
    area: float
    hypervolume: float
    curve: list[list[float]]

    def payload(self) -> dict[str, Any]:
        """The row as it stands in `rows`."""
        return asdict(self)


def row_of(
    entry: tuple[str, str, int],
    found: Cut,
    budget: int,
    limit_points: float,
    *,
    metric: str,
    seconds: float,
    stopped_by: str,
    holdout_drop: float | None,
    delivered: Delivered | None,
) -> Row:
    """The row of (sampler, start, seed); `holdout_drop` in points, None where nothing was accepted; `delivered` None where nothing
    passed.
    """
    best = found.best
    sampler, start, seed = entry
    return Row(
        sampler=sampler,
        start=start,
        seed=seed,
        evaluations=found.spent.evaluations,
        image_forwards=found.spent.image_forwards,
        equivalents=found.spent.equivalent,
        seconds=seconds,
        stopped_by=stopped_by,
        metric=metric,
        limit_points=limit_points,
        best_reduction_vs_int8=found.curve[-1][1] if found.curve else 0.0,
        drop_points=None if best is None else best.outcome.drop_points,
        holdout_drop_points=holdout_drop,
        holdout_kept=None if holdout_drop is None else holdout_drop <= limit_points + WITHIN,
        delivered_reduction_vs_int8=0.0 if delivered is None else delivered.reduction,
        delivered_drop_points=None if delivered is None else delivered.drop_points,
        delivered_origin=None if delivered is None else delivered.record.origin,
        origin=None if best is None else best.origin,
        gained=found.gained,
        area=area(found.curve, budget),
        hypervolume=hypervolume(found.points, limit_points),
        curve=found.curve,
    )
