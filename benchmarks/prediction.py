"""How well the search foresees the damage of a plan before it is measured, on real networks.

    OMP_NUM_THREADS=1 HWC_ONNX_THREADS=1 python benchmarks/prediction.py FOLDER            # records searches, then prints
    python benchmarks/prediction.py FOLDER --table                                          # of what is recorded, runs nothing

Of each sample network three searches are recorded in FOLDER, each with 60 evaluations on 512 images: `knapsack` at a limit of 1
point, `thompson` at 0.4, `spdy` at 3. Then the surrogate is fitted to the first n trials of a search and asked about the next
one, for each n. Printed are, over spans of n, the root of the mean squared error of log damage and the mean standard
deviation that the surrogate had expected; well judged, they are alike.

as it is       the surrogate of the search
fixed floor    no damage but what units explain (a floor of 1e-6)
fitted doubt   what the line leaves is measured on the trials that it was fitted to, as if it had no parameters
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from hwc_onnx.comparison.contest import Contest
from hwc_onnx.comparison.seed_run import SeedRun, SeedTask, config_of
from hwc_onnx.job.running import Running
from hwc_onnx.job.sampling import samples_of
from hwc_onnx.options import Options
from hwc_onnx.runfolder import RunFolder
from hwc_onnx.search import surrogate
from hwc_onnx.search.problem import Option, Problem, Unit
from hwc_onnx.search.study import run_search
from hwc_onnx.search.surrogate import DamageTable, Surrogate

SAMPLES = Path(__file__).parent.parent / "sample_models"
MODELS = ("resnet20", "vgg_small", "mobilenetv2_small", "vit_tiny")
SEARCHES = ((1.0, "knapsack"), (0.4, "thompson"), (3.0, "spdy"))
SPANS = ((3, 6), (6, 12), (12, 24), (24, 60))
VARIANTS = ("as it is", "fixed floor", "fitted doubt")


def record(model: str, args: argparse.Namespace) -> None:
    """The three searches of one network, as FOLDER/<model>.json."""
    path = args.folder / f"{model}.json"
    if path.exists():
        return
    options = Options(data=SAMPLES / "fashion_mnist.npz", accelerator=args.accel, trials=args.trials, search_samples=512)
    contest = Contest(("knapsack",), ("seeds",), 1, args.trials)
    job = SeedRun(SeedTask(SAMPLES / f"{model}.onnx", options, contest, 0, args.folder / f"run-{model}"), None)
    data, splits = samples_of(job.opened, job.options, job.tell)
    digests = {"model": job.opened.loaded.digest, "data": splits.digest, "accelerator": job.profile.digest()}
    rows: list[dict[str, Any]] = []
    with RunFolder(job.task.folder, config_of(job.options, contest, digests)) as kept:
        running = Running(job, kept, data, splits)
        for limit, sampler in SEARCHES:
            objective = running.objective()
            objective.limit_points = limit
            found = run_search(objective, sampler=sampler, trials=args.trials, seed=0, patience=0)
            for trial in found.history.searched().measured():
                choices = [int(choice) for choice in trial.choices]
                rows.append({"limit": limit, "choices": choices, "damage": trial.outcome.damage})
            print(f"{model}, {sampler} at {limit}: {len(found.history)} trials", flush=True)
    units = [
        {"kind": unit.kind, "name": unit.name, "options": [(o.algorithm, o.ratio, o.bits) for o in unit.options], "layers": unit.layers}
        for unit in objective.units
    ]
    damage = [[float(value) for value in row] for row in objective.damage]
    path.write_text(json.dumps({"units": units, "damage": damage, "rows": rows}))


def table_of(recorded: dict[str, Any]) -> DamageTable:
    """The damage table that the searches had."""
    units = [
        Unit(unit["kind"], unit["name"], tuple(Option(*option) for option in unit["options"]), tuple(unit["layers"]))
        for unit in recorded["units"]
    ]
    damage = [np.array(row) for row in recorded["damage"]]
    return DamageTable(cast(Problem, SimpleNamespace(units=units, damage=damage)))


@contextmanager
def as_variant(name: str) -> Iterator[None]:
    """One part of the surrogate changed."""
    before = surrogate.FLOOR, surrogate.FLOOR_SPREAD, surrogate.MOST_LEVERAGE
    if name == "fixed floor":
        surrogate.FLOOR, surrogate.FLOOR_SPREAD = 1e-6, 1e-9
    if name == "fitted doubt":
        surrogate.MOST_LEVERAGE = 0.0
    try:
        yield
    finally:
        surrogate.FLOOR, surrogate.FLOOR_SPREAD, surrogate.MOST_LEVERAGE = before


def foreseen(recorded: dict[str, Any], variant: str) -> dict[tuple[int, int], list[tuple[float, float]]]:
    """(error, expected standard deviation) of each trial's log damage before it was measured, by span."""
    table = table_of(recorded)
    found: dict[tuple[int, int], list[tuple[float, float]]] = {span: [] for span in SPANS}
    with as_variant(variant):
        for limit, _ in SEARCHES:
            rows = [row for row in recorded["rows"] if row["limit"] == limit]
            plans = np.array([row["choices"] for row in rows])
            log_damage = np.log(np.maximum([row["damage"] for row in rows], 1e-7))
            for first, last in SPANS:
                for n in range(first, min(last, len(rows))):
                    fitted = Surrogate.fit(table, plans[:n], log_damage[:n], np.random.default_rng(n))
                    mean, doubt = fitted.predict(plans[n : n + 1])
                    found[first, last].append((float(log_damage[n] - mean[0]), float(doubt[0])))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Damage foreseen by the search against damage measured.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--accel", default="edge-flex")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--table", action="store_true", help="print what is recorded, run nothing")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if not args.table:
        for model in args.models:
            record(model, args)
    print("error of log damage (expected), by how many trials were known")
    print(f"{'':<32}" + "".join(f"{f'{first} .. {last - 1}':>16}" for first, last in SPANS))
    for model in args.models:
        path = args.folder / f"{model}.json"
        if path.exists():
            recorded = json.loads(path.read_text())
            for variant in VARIANTS:
                cells = ""
                for pairs in foreseen(recorded, variant).values():
                    error, doubt = np.array(pairs).T
                    cells += f"{np.sqrt((error**2).mean()):>9.2f} ({np.sqrt((doubt**2).mean()):.2f})"
                print(f"{model:<18}{variant:<14}{cells}", flush=True)


if __name__ == "__main__":
    main()
