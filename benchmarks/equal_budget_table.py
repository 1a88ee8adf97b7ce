"""Tables of `equal_budget.py`: the agent beside every other strategy, cell by cell and over all cells.

A cell is {"model", "accelerator", "budget", "bounds", "rows"}; `bounds` are savings by activation bits; a row is one search as `hwc_onnx.compare` returns it. Only seeds
that every strategy has are compared, so that a table of an unfinished run is paired all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hwc_onnx.comparison.curves import best_at
from hwc_onnx.comparison.signed_rank import holm, signed_rank_p
from hwc_onnx.comparison.summary import POLICY, SAVING
from hwc_onnx.search.seeds import first_plans

AGENT = "composite"
COLD = ("tpe", "tpe-univariate")
"""Strategies that begin with the INT8 baseline alone, where nothing else is asked for."""
DRAWS = 20_000

Row = Mapping[str, Any]


def complete(rows: Sequence[Row], entries: Sequence[tuple[str, str]]) -> list[Row]:
    """The rows of (sampler, start) in `entries`, of seeds that all of them have."""
    there = {(row["sampler"], row["start"], row["seed"]): row for row in rows}
    seeds = [seed for seed in sorted({row["seed"] for row in rows}) if all((*entry, seed) in there for entry in entries)]
    return [there[*entry, seed] for entry in entries for seed in seeds]


def of(cell: Row, sampler: str, start: str) -> list[Row]:
    """The rows of a strategy, by seed."""
    rows = [row for row in cell["rows"] if (row["sampler"], row["start"]) == (sampler, start)]
    return sorted(rows, key=lambda row: int(row["seed"]))


def saved(rows: Sequence[Row]) -> np.ndarray:
    """Savings by seed, of the plans that pass on the holdout."""
    return np.array([row[SAVING] for row in rows])


def found(rows: Sequence[Row]) -> np.ndarray:
    """Savings by seed, of the best plans on the search samples."""
    return np.array([row["best_reduction_vs_int8"] for row in rows])


def quartiles(values: np.ndarray) -> str:
    """Median and quartiles in per cent."""
    low, middle, high = 100.0 * np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:5.1f} ({low:.1f}-{high:.1f})"


def opponents(cell: Row) -> list[str]:
    """Strategies that ran from the agent's first plans."""
    return list(dict.fromkeys(row["sampler"] for row in cell["rows"] if row["start"] == "seeds" and row["sampler"] != AGENT))


def cold(cell: Row) -> list[str]:
    """Strategies that began with INT8 alone."""
    return list(dict.fromkeys(row["sampler"] for row in cell["rows"] if row["start"] == "cold"))


def better_cold(cell: Row) -> tuple[str, float]:
    """The cold strategy whose median saves most, and that median."""
    return max(((name, float(np.median(saved(of(cell, name, "cold"))))) for name in cold(cell)), key=lambda one: one[1])


def cell_lines(cell: Row) -> Iterator[str]:
    """One cell: strategies, then the agent beside cold TPE and its seeds."""
    agent = of(cell, AGENT, "seeds")
    ours = saved(agent)
    yield f"{cell['model']} on {cell['accelerator']}, {len(agent)} seeds, {cell['budget']} evaluation-equivalents"
    names = opponents(cell)
    tests = {side: [signed_rank_p(ours, saved(of(cell, name, "seeds")), side) for name in names] for side in ("greater", "less")}
    corrected = {side: holm(values) for side, values in tests.items()}
    yield f"  {AGENT:<15} seeds {quartiles(ours)}  search {quartiles(found(agent))}"
    for place, name in enumerate(names):
        theirs = saved(of(cell, name, "seeds"))
        yield (
            f"  {name:<15} seeds {quartiles(theirs)}  search {quartiles(found(of(cell, name, 'seeds')))}  agent {100 * float(np.median(ours) - np.median(theirs)):+.1f}, better p "
            f"{corrected['greater'][place]:.3f}, worse p {corrected['less'][place]:.3f} (Holm)"
        )
    for name in cold(cell):
        rows = of(cell, name, "cold")
        yield f"  {name:<15} cold  {quartiles(saved(rows))}  search {quartiles(found(rows))}"
    yield from beside_cold(cell, agent) if cold(cell) else ()
    gained = {origin: np.mean([row["gained"].get(origin, 0.0) for row in agent]) for row in agent for origin in row["gained"]}
    yield "  saved by " + ", ".join(f"{origin} {100 * value:.1f}" for origin, value in sorted(gained.items()))


def beside_cold(cell: Row, agent: Sequence[Row]) -> Iterator[str]:
    """The agent beside the better cold strategy, the bounds, and its own first plans."""
    ours = saved(agent)
    name, theirs = better_cold(cell)
    middle = float(np.median(ours))
    aim = float(np.median(found(of(cell, name, "cold"))))
    reached = next(
        (at for at in range(cell["budget"] + 1) if np.median([best_at(row["curve"], at) for row in agent]) >= aim), None
    )
    beaten = sum(row["best_reduction_vs_int8"] > seeds_of(row) + 1e-9 for row in agent)
    widths = " and ".join(f"{bits}-bit" for bits in cell["bounds"])
    gaps = " / ".join(f"{(middle - theirs) / (bound - theirs):.2f}" for bound in cell["bounds"].values())
    shares = " / ".join(f"{100 * bound:.1f}" for bound in cell["bounds"].values())
    yield f"  gap {gaps} (bound {shares} %, of {widths} activations)"
    yield (
        f"  below {name} cold {100 * (1 - (1 - middle) / (1 - theirs)):.0f} %, reached after {'never' if reached is None else reached}, "
        f"seed {beaten}/{len(agent)}"
    )


def seeds_of(row: Row) -> float:
    """The saving of the best first plan: the baseline's evaluation opens the curve."""
    return best_at(row["curve"], row["curve"][0][0] + first_plans("seeds") - 1) if row["curve"] else 0.0


def stratified(pairs: Sequence[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> tuple[float, float]:
    """p of "not better" and "not worse" over cells of paired savings, from signs drawn at random."""
    total, drawn = 0.0, np.zeros(DRAWS)
    for ours, theirs in pairs:
        differences = np.round(ours - theirs, 9)
        differences = differences[differences != 0.0]
        if len(differences):
            ranks = np.argsort(np.argsort(np.abs(differences))) + 1.0
            ranks /= np.sqrt((ranks**2).sum())
            total += float((np.sign(differences) * ranks).sum())
            drawn += rng.choice((-1.0, 1.0), size=(DRAWS, len(ranks))) @ ranks
    better, worse = (float((1 + np.sum(side * drawn >= side * total - 1e-12)) / (1 + DRAWS)) for side in (1.0, -1.0))
    return better, worse


def table(cells: Sequence[Row]) -> Iterator[str]:
    """What the agents' own plans brought, all cells, and the test over all of them."""
    own = [float(row["gained"].get(POLICY, 0.0)) for cell in cells for row in of(cell, AGENT, "seeds")]
    yield (
        f"plans that the agents proposed saved {100 * float(np.mean(own)):.1f} percentage points in the mean of {len(own)} searches, "
        f"and nothing in {sum(value <= 0.0 for value in own)} of them\n"
    )
    for cell in cells:
        yield from cell_lines(cell)
        yield ""
    names = list(dict.fromkeys(name for cell in cells for name in opponents(cell)))
    if names:
        yield f"{'all cells: agent against':<27} {'median of cell differences':>27} {'cells +/-':>10} {'better p':>9} {'worse p':>9}"
    for name in names:
        pairs = [(saved(of(cell, AGENT, "seeds")), saved(of(cell, name, "seeds"))) for cell in cells if name in opponents(cell)]
        gaps = np.array([float(np.median(ours) - np.median(theirs)) for ours, theirs in pairs])
        better, worse = stratified(pairs, np.random.default_rng(0))
        signs = f"{int((gaps > 0.001).sum())}/{int((gaps < -0.001).sum())}"
        yield f"{name:<27} {100 * float(np.median(gaps)):>+27.2f} {signs:>10} {better:>9.4f} {worse:>9.4f}"
