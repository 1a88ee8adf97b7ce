"""Energy at the same damage: two strategies' plans compared without the luck of the gate.

    python benchmarks/fronts.py FOLDER                       # the FOLDER of equal_budget.py on the machine that ran it: its studies are needed
    python benchmarks/fronts.py FOLDER --of composite.seeds --over tpe.cold

What a gate lets pass differs by points between plans of equal damage and energy (benchmarks/ladder_luck.py), so one seed's delivered plans say little of which
strategy searches better. Damage is smooth and measured on the same samples for all strategies of a cell. For each cell: the least energy of any plan, the refitted ones
included, that does at most so much damage, over that of the other strategy; damages are shares of what the gate is expected to let pass (the geometric mean of the
two searches' expectations). Last come geometric means over cells.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from ladder_belief import history_of, options

from hwc_onnx.search.gate import Judging
from hwc_onnx.search.history import History
from hwc_onnx.search.ladder import Ladder

SHARES = (0.5, 0.7, 1.0, 1.4)


def cheapest(history: History, damage: float) -> float:
    """The least energy of a plan that was measured on all samples and does at most this damage; INT8's where there is none."""
    return min([1.0, *(r.outcome.energy for r in history.measured() if r.outcome.complete and r.outcome.damage <= damage)])


def expected(history: History, holdout: int) -> float:
    """The damage that the gate is expected to let pass, by the search alone."""
    return Ladder.of(history.searched(), history.records[0].choices, Judging(holdout)).belief.expected


def lines(args: argparse.Namespace) -> Iterator[str]:
    """One for each cell, then the means."""
    yield f"energy of {args.of} over that of {args.over} at the same damage, in shares of what the gate is expected to let pass"
    yield f"{'':56}" + "".join(f"{share:8g}" for share in SHARES)
    found = []
    for cell in sorted(args.folder.glob("work/*/seed-*")):
        if not all((cell / name / "row.json").exists() for name in (args.of, args.over)):
            continue
        pair = [history_of(cell / name, args.max_drop) for name in (args.of, args.over)]
        usual = float(np.sqrt(np.prod([expected(history, args.holdout) for history in pair])))
        first, second = ([cheapest(history, share * usual) for share in SHARES] for history in pair)
        found.append(np.array(first) / np.array(second))
        yield f"{cell.parent.name + ' ' + cell.name:56}" + "".join(f"{ratio:8.3f}" for ratio in found[-1])
    if found:
        yield f"{f'geometric mean of {len(found)}':56}" + "".join(f"{mean:8.3f}" for mean in np.exp(np.log(found).mean(axis=0)))


def main() -> None:
    """Command line."""
    parser = options("Energy at the same damage, of one strategy over another.")
    parser.add_argument("--of", default="composite.seeds", metavar="STUDY")
    parser.add_argument("--over", default="knapsack.seeds", metavar="STUDY")
    args = parser.parse_args()
    for line in lines(args):
        print(line, flush=True)


if __name__ == "__main__":
    main()
