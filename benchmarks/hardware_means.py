"""What the agent saves on each shipped accelerator, beside what the accelerator could pay for at most.

    python benchmarks/equal_budget.py FOLDER --seeds 1 --referees --cold --accels edge-tpu-64x64 nvdla-large ...     # searches
    python benchmarks/hardware_means.py FOLDER                                                                       # this table

Energy saved against dense INT8 on the same accelerator, in per cent, of the plan that `compress` would write (it passes on the holdout),
median over the seeds that FOLDER has; where nothing passed, INT8 is written (0.0). `bound` is the setting of benchmarks/hardware_matters.py that
no plan can be; `share` is how much of it is reached. `pays for` is what the profile rewards inside its array: `bits` where a multiplication costs less with narrower operands, `zeros`
where it notices zero weights. Channels pay everywhere, narrow storage wherever a memory packs it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from equal_budget import AGENT, MODELS, SAMPLES, Records, add_conditions, conditions
from hardware_matters import savings

from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.workspace import open_model

BOUND = "bound, 2-bit activations"


def pays_for(profile: AcceleratorProfile) -> str:
    """What the array rewards, in words."""
    noticed = [rule for rule in (profile.sparsity.gate, profile.sparsity.skip) if rule is not None and "W" in rule.operands]
    found = (["bits"] if profile.mac.law != "fixed" else []) + (["zeros"] if noticed else [])
    return " and ".join(found) or "neither"


def saved(records: Records, model: str, accelerator: str) -> tuple[float, float, int] | None:
    """Medians of the saving and of the drop on the holdout in points, and how many seeds they are of."""
    rows = [row for key, row in records.rows.items() if key[:2] == (model, accelerator) and key[3:] == (AGENT, "seeds")]
    if not rows:
        return None
    return (
        float(np.median([row["delivered_reduction_vs_int8"] for row in rows])),
        float(np.median([row["delivered_drop_points"] or 0.0 for row in rows])),
        len(rows),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="What the agent saves on each accelerator, beside the bound.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--accels", nargs="+", default=list_profiles())
    add_conditions(parser)
    args = parser.parse_args()
    records = Records(args.folder, conditions(args))
    graphs = {model: open_model(SAMPLES / f"{model}.onnx").graph for model in args.models}
    print(f"{'accelerator':<20} {'pays for':<15}" + "".join(f"{f'{model}  bound  drop':>32}" for model in args.models) + f"{'mean':>8} {'share':>6}")
    means: dict[str, list[tuple[float, float]]] = {}
    for name in args.accels:
        profile = load_profile(name)
        found = {model: saved(records, model, name) for model in args.models}
        there = {model: one for model, one in found.items() if one is not None}
        if not there:
            continue
        bounds = {model: savings(profile, graphs[model], 0.0).saved[BOUND] for model in there}
        cells = []
        for model in args.models:
            one = found[model]
            cells.append(f"{'-':>32}" if one is None else f"{f'{100 * one[0]:.1f}  {100 * bounds[model]:5.1f}  {one[1]:+.2f}':>32}")
        mean, bound = float(np.mean([one[0] for one in there.values()])), float(np.mean(list(bounds.values())))
        complete = len(there) == len(args.models)
        if complete:
            means.setdefault(pays_for(profile), []).append((mean, bound))
        print(f"{name:<20} {pays_for(profile):<15}" + "".join(cells) + f"{100 * mean:>8.1f} {mean / bound:>6.2f}" + ("" if complete else "  (not all networks)"))
    print()
    rewarding = [one for kind, some in means.items() if kind != "neither" for one in some]
    every = [one for some in means.values() for one in some]
    for label, some in (*means.items(), ("bits or zeros", rewarding), ("all", every)):
        if some:
            mean, bound = np.mean(some, axis=0)
            print(f"{label:<20} {len(some)} accelerators: saved {100 * mean:.1f} %, bound {100 * bound:.1f} %, share {mean / bound:.2f}")


if __name__ == "__main__":
    main()
