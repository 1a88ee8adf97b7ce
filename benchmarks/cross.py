"""Whether a plan searched for one accelerator is the right one there: every plan costed on every accelerator.

    python benchmarks/cross.py FOLDER        # the FOLDER of equal_budget.py

Takes the agent's plans that `equal_budget.py` kept: searched independently, with the same budget and limit, each the last that passed on
the holdout of its seed; searches of which nothing passed are left out. Columns are what a plan is costed on, rows what it was searched for;
figures are energy relative to INT8 on the column's accelerator, medians over the seeds that all rows have. The row's own is in brackets.
`own / best` is that of the column's own plan over the column's best (1.00: no plan searched for another accelerator takes less there),
`own / other` over the best of the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from equal_budget import ACCELERATORS, AGENT, MODELS, SAMPLES, Records, add_conditions, conditions

from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.plan import CompressionPlan, with_plan
from hwc_onnx.workspace import open_model


def plans_of(records: Records, model: str, accelerators: list[str]) -> dict[str, list[tuple[CompressionPlan, dict[str, Any]]]]:
    """The agent's plans and lines, by the accelerator that they were searched for, of seeds that all of them have."""
    found: dict[str, dict[int, tuple[CompressionPlan, dict[str, Any]]]] = {name: {} for name in accelerators}
    for (name, accelerator, seed, sampler, start), row in records.rows.items():
        path = records.folder / "plans" / f"{model}-{accelerator}-{records.conditions}-{seed}.json"
        passed = row["delivered_drop_points"] is not None
        if (name, sampler, start) == (model, AGENT, "seeds") and accelerator in found and passed and path.exists():
            found[accelerator][seed] = (CompressionPlan.from_json(path.read_text(encoding="utf-8")), row)
    found = {name: by_seed for name, by_seed in found.items() if by_seed}
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in found.values()))) if found else []
    return {name: [by_seed[seed] for seed in seeds] for name, by_seed in found.items()} if seeds else {}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Plans searched for one accelerator, costed on all.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--accels", nargs="+", default=list(ACCELERATORS))
    add_conditions(parser)
    args = parser.parse_args()
    records = Records(args.folder, conditions(args))
    costs = {name: CostModel(load_profile(name)) for name in args.accels}
    for model in args.models:
        plans = plans_of(records, model, args.accels)
        if len(plans) < 2:
            print(f"{model}: plans of {len(plans)} accelerators under these conditions, two are needed\n")
            continue
        graph = open_model(SAMPLES / f"{model}.onnx").graph
        names = list(plans)
        cost = np.array([[[costs[on].cost(with_plan(graph, plan)).total for plan, _ in plans[to]] for on in names] for to in names])
        # the plan's own line says what it saves; so the baseline, with the densities measured for it, need not be made again
        left = np.array([[1.0 - line["delivered_reduction_vs_int8"] for _, line in plans[name]] for name in names])
        energy = cost * left / np.array([cost[i, i] for i in range(len(names))])
        print(f"{model}, {energy.shape[2]} seeds\n{'searched for':<20}" + "".join(f"{name:>20}" for name in names) + f"{'holdout drop':>14}")
        middle = np.median(energy, axis=2)
        for row, to in enumerate(names):
            drops = [line["delivered_drop_points"] for _, line in plans[to]]
            cells = "".join(f"{f'[{value:.3f}]' if row == column else f'{value:.3f} ':>20}" for column, value in enumerate(middle[row]))
            print(f"{to:<20}{cells}{np.median(drops):>+14.2f}")
        own = np.diag(middle)
        others = np.min(middle + np.diag(np.full(len(names), np.inf)), axis=0)
        for label, against in (("own / best", np.minimum(own, others)), ("own / other", others)):
            print(f"{label:<20}" + "".join(f"{value:>19.2f} " for value in own / against))
        print()


if __name__ == "__main__":
    main()
