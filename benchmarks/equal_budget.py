"""The agent against every other strategy at equal budget, on several networks and accelerators.

    OMP_NUM_THREADS=1 python benchmarks/equal_budget.py FOLDER                      # 3 networks x 3 accelerators, 8 seeds
    python benchmarks/equal_budget.py FOLDER --models resnet20 --accels edge-flex --seeds 2 --budget 60 --jobs 2
    python benchmarks/equal_budget.py FOLDER --table                                  # of what is there, runs nothing

A cell is a network on an accelerator. In it every strategy runs once for each seed, which picks the data split (512 search
images) and seeds the strategy; TPE runs from the INT8 baseline alone too (cold). The budget counts evaluation-equivalents:
images through the network / search images, calibration and the damage table included (docs/compare.md). All cells have seed 0
before one has seed 1.

FOLDER/rows.jsonl holds a line for each finished search, FOLDER/plans the agent's plans, FOLDER/work the studies. A search that
has its line is not run again: the first two are all that another machine needs to go on. With --without NAME the lines of a
strategy are dropped, so that it alone runs again.

saved     energy saved against INT8, median (quartiles) over seeds: first of the plan that `compress` would write, the last that its gate lets
          pass on the holdout, then of the best plan on the search samples
gap       of what lies between the better cold TPE and the accelerator's two bounds (benchmarks/hardware_matters.py), the share closed
below     how much less energy than that TPE's plan
reached   evaluation-equivalents after which the median agent has what that TPE ends with, both on the search samples
seed      searches whose plan is better than the best of the first plans
all       one test over all cells: signed ranks of the paired differences, standardised in each cell and added up; p from random
          signs (20,000 draws)
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equal_budget_table import AGENT, COLD, complete, table
from hardware_matters import BOUNDS, savings

from hwc_onnx.commit import commit
from hwc_onnx.comparison.comparing import options_of
from hwc_onnx.comparison.contest import Contest, folder_name
from hwc_onnx.comparison.processes import in_processes
from hwc_onnx.comparison.seed_run import SeedTask, row_file, run_seed
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.search.seeds import STARTS
from hwc_onnx.workspace import open_model

SAMPLES = Path(__file__).parent.parent / "sample_models"
MODELS = ("resnet20", "mobilenetv2_small", "vit_tiny")
ACCELERATORS = ("edge-flex", "bitfusion-32x16", "eyeriss-v2-sparse")
REFEREES = ("knapsack", "thompson", "spdy", "evolution", "tpe", "tpe-univariate")
DIGITS = 5

Row = dict[str, Any]
Key = tuple[str, str, int, str, str]
"""Model, accelerator, seed, sampler, start."""


def key_of(row: Mapping[str, Any]) -> Key:
    """Which search a line is of."""
    return row["model"], row["accelerator"], int(row["seed"]), row["sampler"], row["start"]


def rounded(value: Any) -> Any:
    """Floats to `DIGITS`, in lists and mappings too."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return {name: rounded(one) for name, one in value.items()} if isinstance(value, dict) else value


class Records:
    """The lines of FOLDER/rows.jsonl under the conditions `same`, by their names in a line."""

    def __init__(self, folder: Path, same: Mapping[str, float]) -> None:
        self.folder, self.path, self.same = folder, folder / "rows.jsonl", dict(same)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.all: list[Row] = [json.loads(line) for line in lines]

    @property
    def rows(self) -> dict[Key, Row]:
        """The lines that count here."""
        return {key_of(row): row for row in self.all if self._counts(row)}

    @property
    def conditions(self) -> str:
        """A name for them."""
        return "-".join(f"{value:g}" for value in self.same.values())

    def _counts(self, row: Row) -> bool:
        return all(row[name] == value for name, value in self.same.items())

    def drop(self, samplers: Sequence[str]) -> None:
        """Forget the lines of strategies and their studies."""
        self.all = [row for row in self.all if not self._counts(row) or row["sampler"] not in samplers]
        self._write()
        for name in (folder_name(sampler, start) for sampler in samplers for start in STARTS):
            for study in self.folder.glob(f"work/*-{self.conditions}/seed-*/{name}"):
                shutil.rmtree(study)

    def add(self, model: str, accelerator: str, row: Mapping[str, Any]) -> None:
        """Keep a finished search."""
        own = {"model": model, "accelerator": accelerator, "commit": commit(), **self.same}
        line = rounded(own | dict(row))
        if key_of(line) not in self.rows:
            self.all.append(line)
            self._write()

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = "".join(json.dumps(row) + "\n" for row in sorted(self.all, key=lambda row: (*key_of(row), row["budget"])))
        new = self.path.with_suffix(".part")
        new.write_text(whole, encoding="utf-8")
        new.replace(self.path)


Task = tuple[SeedTask, ...]
"""The searches of a seed that begin with the first plans, then the cold ones: one folder, so one process."""


def tasks_of(args: argparse.Namespace, records: Records) -> list[tuple[str, str, Task]]:
    """What is still to be run, with its model and accelerator: seed 0 of all cells first."""
    found = []
    for seed, model, accelerator in itertools.product(range(args.seeds), args.models, args.accels):
        given = {
            "data": SAMPLES / "fashion_mnist.npz",
            "accelerator": accelerator,
            "max_drop": args.max_drop,
            "search_samples": args.search_samples,
            "calibration_samples": args.calibration_samples,
        }
        place = records.folder / "work" / f"{model}-{accelerator}-{records.conditions}" / f"seed-{seed}"
        contests = []
        for samplers, start in (((AGENT, *args.referees), "seeds"), (args.cold, "cold")):
            missing = tuple(name for name in samplers if (model, accelerator, seed, name, start) not in records.rows)
            if missing:
                contests.append(Contest(missing, (start,), args.seeds, args.budget))
        if contests:
            path = SAMPLES / f"{model}.onnx"
            task = tuple(SeedTask(path, options_of(given), contest, seed, place) for contest in contests)
            found.append((model, accelerator, task))
    return found


def run_task(task: Task) -> None:
    """All searches of a seed."""
    for one in task:
        run_seed(one)


def run(args: argparse.Namespace, records: Records) -> None:
    """All tasks, `args.jobs` at a time; what is finished is kept at once."""
    tasks = tasks_of(args, records)
    waiting = {
        row_file(one, *entry): (model, accelerator) for model, accelerator, task in tasks for one in task for entry in one.contest.entries
    }

    def gather() -> None:
        for path in [path for path in waiting if path.exists()]:
            keep(records, *waiting.pop(path), json.loads(path.read_text(encoding="utf-8")), path.parent / "plan.json")

    for _, _, task in tasks:
        task[0].folder.mkdir(parents=True, exist_ok=True)
    for _ in in_processes(run_task, [task for _, _, task in tasks], args.jobs, gather):
        gather()


def keep(records: Records, model: str, accelerator: str, row: Row, plan: Path) -> None:
    """A finished search, and its plan where it is the agent's."""
    records.add(model, accelerator, row)
    if (row["sampler"], row["start"]) == (AGENT, "seeds") and plan.exists():
        (records.folder / "plans").mkdir(exist_ok=True)
        shutil.copyfile(plan, records.folder / "plans" / f"{model}-{accelerator}-{records.conditions}-{row['seed']}.json")
    print(
        f"{model} on {accelerator}, seed {row['seed']}, {row['sampler']} ({row['start']}): {100 * row['best_reduction_vs_int8']:.1f} % in "
        f"{row['seconds']:.0f} s",
        flush=True,
    )


def cells_of(args: argparse.Namespace, records: Records) -> list[dict[str, Any]]:
    """The cells that have a seed of which every strategy is there, with the accelerator's bounds."""
    found = []
    entries = [*((name, "seeds") for name in (AGENT, *args.referees)), *((name, "cold") for name in args.cold)]
    for model, accelerator in itertools.product(args.models, args.accels):
        rows = complete([row for key, row in records.rows.items() if key[:2] == (model, accelerator)], entries)
        if rows:
            own = savings(load_profile(accelerator), open_model(SAMPLES / f"{model}.onnx").graph, 0.0).saved
            bounds = {bits: own[name] for name, bits in sorted(BOUNDS.items(), key=lambda one: one[1])}
            found.append({"model": model, "accelerator": accelerator, "budget": args.budget, "bounds": bounds, "rows": rows})
    return found


def add_conditions(parser: argparse.ArgumentParser) -> None:
    """Options for what must be the same for searches to be compared."""
    parser.add_argument("--budget", type=int, default=100)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--search-samples", type=int, default=512)
    parser.add_argument("--calibration-samples", type=int, default=256)


def conditions(args: argparse.Namespace) -> dict[str, float]:
    """They, by their names in a line."""
    return {
        "budget": args.budget,
        "limit_points": args.max_drop,
        "search_samples": args.search_samples,
        "calibration_samples": args.calibration_samples,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="The agent against every other strategy at equal budget.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--accels", nargs="+", default=list(ACCELERATORS))
    parser.add_argument("--referees", nargs="*", default=list(REFEREES))
    parser.add_argument("--cold", nargs="*", default=list(COLD))
    parser.add_argument("--seeds", type=int, default=8)
    add_conditions(parser)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="drop the lines of these strategies first")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    args = parser.parse_args()
    records = Records(args.folder, conditions(args))
    if args.without:
        records.drop(args.without)
    if not args.table:
        run(args, records)
    cells = cells_of(args, records)
    print("\n".join(table(cells)) if cells else "nothing is there yet")


if __name__ == "__main__":
    main()
