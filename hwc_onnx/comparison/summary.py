"""From rows to figures: quartiles of each strategy, tests against the agent, and sentences that say who wins.

Better and worse are decided by medians of the saving that is delivered at the full budget: of the plan that passes on the holdout, not of the
one that the search samples flatter most. The tests say how sure that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hwc_onnx.comparison.contest import AGENT, Contest
from hwc_onnx.comparison.curves import best_at
from hwc_onnx.comparison.signed_rank import holm, signed_rank_p, smallest_p

TIE = 0.001
"""Medians of the saving that differ by less, a tenth of a percentage point of INT8's energy, are a tie (assumed)."""
LEVEL = 0.05
"""A corrected p at or below this is called significant."""

POLICY, FIRST = "policy", "seed"
"""Origins of plans that the agents proposed, and of those that a study begins with."""

SAVING = "delivered_reduction_vs_int8"
"""What decides."""

Rows = Sequence[Mapping[str, Any]]


def summarize(rows: Rows, contest: Contest) -> dict[str, Any]:
    """The `summary` of a comparison whose every entry has a row for each seed."""
    grouped = {entry: _of(rows, *entry) for entry in contest.entries}
    comparisons = _comparisons(grouped, contest)
    strategies = [_strategy(*entry, found, contest.budget) for entry, found in grouped.items()]
    return {
        "reference": contest.reference,
        "budget": contest.budget,
        "third": contest.budget / 3,
        "seeds": contest.seeds,
        "smallest_p": smallest_p(contest.seeds),
        "strategies": strategies,
        "comparisons": comparisons,
        "verdict": with_agents(verdict(comparisons, contest), strategies),
    }


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles, interpolated between neighbours."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return {"median": float(median), "q1": float(low), "q3": float(high)}


def _of(rows: Rows, sampler: str, start: str) -> list[Mapping[str, Any]]:
    """The rows of one entry, by seed."""
    found = [row for row in rows if (row["sampler"], row["start"]) == (sampler, start)]
    return sorted(found, key=lambda row: int(row["seed"]))


def _strategy(sampler: str, start: str, rows: Rows, budget: int) -> dict[str, Any]:
    judged = [row for row in rows if row["holdout_drop_points"] is not None]
    axis = range(budget + 1)
    bands = [quartiles([best_at(row["curve"], spent) for row in rows]) for spent in axis]
    return {
        "sampler": sampler,
        "start": start,
        "delivered": quartiles([row[SAVING] for row in rows]),
        "reduction": quartiles([row["best_reduction_vs_int8"] for row in rows]),
        "reduction_at_third": quartiles([best_at(row["curve"], budget / 3) for row in rows]),
        "area": quartiles([row["area"] for row in rows]),
        "hypervolume": quartiles([row["hypervolume"] for row in rows]),
        "drop_points": quartiles([row["drop_points"] for row in judged]) if judged else None,
        "holdout_drop_points": quartiles([row["holdout_drop_points"] for row in judged]) if judged else None,
        "judged": len(judged),
        "holdout_kept": sum(bool(row["holdout_kept"]) for row in judged),
        "gained": _gained(rows),
        "seconds": quartiles([row["seconds"] for row in rows]),
        "band": {name: [band[name] for band in bands] for name in ("median", "q1", "q3")},
    }


def _gained(rows: Rows) -> dict[str, float]:
    """Mean saving that the plans of each origin brought."""
    origins = sorted({name for row in rows for name in row["gained"]})
    return {name: float(np.mean([row["gained"].get(name, 0.0) for row in rows])) for name in origins}


def _comparisons(grouped: Mapping[tuple[str, Any], Rows], contest: Contest) -> list[dict[str, Any]]:
    """The reference against each other sampler from the same start, with p values corrected over all of these."""
    made: list[dict[str, Any]] = []
    for sampler, start in contest.entries:
        if sampler == contest.reference:
            continue
        ours = [float(row[SAVING]) for row in grouped[contest.reference, start]]
        theirs = [float(row[SAVING]) for row in grouped[sampler, start]]
        gap = float(np.median(ours) - np.median(theirs))
        pairs = np.subtract(ours, theirs)
        made.append(
            {
                "start": start,
                "sampler": contest.reference,
                "against": sampler,
                "outcome": outcome(gap),
                "difference_of_medians": gap,
                "median_difference": float(np.median(pairs)),
                "seeds_better": int(np.sum(pairs >= TIE)),
                "seeds_worse": int(np.sum(pairs <= -TIE)),
                "p_better": signed_rank_p(ours, theirs, "greater"),
                "p_worse": signed_rank_p(ours, theirs, "less"),
            }
        )
    for side in ("p_better", "p_worse"):
        for one, corrected in zip(made, holm([float(one[side]) for one in made]), strict=True):
            one[f"{side}_holm"] = corrected
    return made


def outcome(gap: float) -> str:
    """ "wins", "ties" or "loses" by the difference of medians, a share of the INT8 baseline's energy."""
    if abs(gap) < TIE:
        return "ties"
    return "wins" if gap > 0 else "loses"


def verdict(comparisons: Sequence[Mapping[str, Any]], contest: Contest) -> list[str]:
    """Sentences; the first, one for each start, say to whom the reference loses, with whom it ties and against whom it wins."""
    if not comparisons:
        return [f"{contest.reference} ran alone: there is nothing to compare it with"]
    lines = []
    for start in contest.starts:
        named = {
            kind: [str(one["against"]) for one in comparisons if (one["start"], one["outcome"]) == (start, kind)]
            for kind in ("loses", "ties", "wins")
        }
        words = [f"loses to {_list(named['loses'])}"]
        words += [f"ties with {_list(named['ties'])}"] if named["ties"] else []
        words += [f"wins against {_list(named['wins'])}"] if named["wins"] else []
        lines.append(
            f"{contest.reference} {', '.join(words)} (start {start}; medians of the saving that passes "
            f"on the holdout, {contest.budget} evaluation-equivalents, {contest.seeds} seeds)"
        )
    return [*lines, _certainty(comparisons, contest)]


def with_agents(lines: Sequence[str], strategies: Sequence[Mapping[str, Any]]) -> list[str]:
    """The verdict with what the agents' own plans brought where the composite strategy took part: first if it is nothing."""
    nothing: list[str] = []
    something: list[str] = []
    for one in strategies:
        if one["sampler"] != AGENT:
            continue
        own = one["gained"].get(POLICY, 0.0)
        others = sum(saving for name, saving in one["gained"].items() if name not in (POLICY, FIRST))
        said = f"saved {100.0 * own:.1f} percentage points" if own > 0.0 else "saved nothing"
        (something if own > 0.0 else nothing).append(
            f"{AGENT}, start {one['start']}: plans that the agents proposed {said}, all others {100.0 * others:.1f}, beyond the "
            "first plans (means over seeds)"
        )
    return [*nothing, *lines[:-1], *something, *lines[-1:]]


def _list(names: Sequence[str]) -> str:
    return " and ".join(names) or "none"


def _certainty(comparisons: Sequence[Mapping[str, Any]], contest: Contest) -> str:
    """What the tests say, or that there are too few seeds for them to say anything."""
    least = smallest_p(contest.seeds) * len(comparisons)
    if least > LEVEL:
        return (
            f"no difference can be significant: with {contest.seeds} seeds the smallest p is 2^-{contest.seeds} = "
            f"{smallest_p(contest.seeds):.2g}, {min(least, 1.0):.2g} after Holm's correction for {len(comparisons)} comparisons"
        )
    said = [
        f"{word} than {one['against']} (start {one['start']}, p = {one[f'{side}_holm']:.2g})"
        for side, word in (("p_worse", "worse"), ("p_better", "better"))
        for one in comparisons
        if one[f"{side}_holm"] <= LEVEL
    ]
    return f"significant at {LEVEL:g} after Holm's correction: {contest.reference} is " + (
        "; ".join(said) if said else "neither better nor worse than any other"
    )
