"""Rows as a comparison makes them, with savings that are stated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def row(sampler: str, seed: int, saving: float, start: str = "seeds", budget: int = 12, **changes: Any) -> dict[str, Any]:
    """One search that found its saving halfway."""
    return {
        "sampler": sampler, "start": start, "seed": seed, "evaluations": budget, "image_forwards": 100 * budget,
        "equivalents": float(budget), "seconds": 2.0 + seed, "stopped_by": "trials", "metric": "top1", "limit_points": 1.0,
        "best_reduction_vs_int8": saving, "drop_points": 0.5, "holdout_drop_points": 0.8, "holdout_kept": True,
        "delivered_reduction_vs_int8": saving, "delivered_drop_points": 0.7, "delivered_origin": "rollout",
        "origin": "rollout", "gained": {"policy": saving / 4, "rollout": saving * 3 / 4}, "area": saving / 2, "hypervolume": saving / 3,
        "curve": [[1.0, 0.0], [budget / 2, saving]], **changes,
    }  # fmt: skip


def rows(savings: Mapping[str, Sequence[float]], start: str = "seeds") -> list[dict[str, Any]]:
    """Rows by seed, one for each sampler."""
    seeds = len(next(iter(savings.values())))
    return [row(sampler, seed, found[seed], start) for seed in range(seeds) for sampler, found in savings.items()]
