"""Every step of the ladders of finished searches, looked at on the holdout: how much luck each plan has of its own (hwc_onnx/search/ladder.py).

    OMP_NUM_THREADS=1 python benchmarks/ladder_luck.py FOLDER                  # the FOLDER of equal_budget.py on the machine that ran it
    python benchmarks/ladder_luck.py benchmarks/records/ladder_luck            # looks that are kept: of 14 searches before refitted plans were heard, and of 5 after
    python benchmarks/ladder_luck.py FOLDER --cells resnet20-eyeriss-v1 vit_tiny-edge-tpu-64x64

The gate stops at the first plan that fails; here none stops. Of a ladder of more than 16 steps so many are looked at, evenly spread. For each search come
damages over the damage expected (`failed` in brackets), the least energy of a plan that passed, and the energy that the ladder of eight steps at most ends
with if plans have luck of their own (standard deviation of the logarithm of the damage borne) or none. Last comes the likelihood of what passed and failed for
several such deviations, where what all plans of a search share is distributed as the ladder believes. Searches are not changed; results are kept in FOLDER/luck.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from equal_budget import SAMPLES
from scipy.special import log_ndtr

from hwc_onnx.comparison.comparing import options_of
from hwc_onnx.comparison.contest import Contest, folder_name
from hwc_onnx.comparison.seed_run import SeedRun, SeedTask
from hwc_onnx.job.running import Running
from hwc_onnx.search.gate import MOST_LOOKS, Gate
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.ladder import LUCK, SPREADS, Belief, Ladder
from hwc_onnx.search.objective import Objective
from hwc_onnx.search.problem import Outcome

MOST_STEPS = 16
LUCKS = (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
SAMPLER = ("composite", "seeds")

Looks = dict[str, Any]
"""`expected` damage, and for each step its `damage`, `energy` and whether it `passed`."""


class Looking(SeedRun):
    """A seed's run whose finished study is judged step by step."""

    looks: Looks

    def _delivered(self, running: Running, objective: Objective, holdout: Any, history: History) -> tuple[None, dict[int, float]]:
        ladder = Ladder.of(history, objective.start, objective.judging)
        steps = ladder.steps[:: -(-len(ladder.steps) // MOST_STEPS) or 1]
        gate = Gate.choose(None, holdout, running.limit_points, expected=[step.outcome for step in steps], seed=self.task.seed)
        gate, passed = replace(gate, levels=("fake_quant",)), []
        for step in steps:
            passed.append(gate.look(running.candidate(objective, step).proto).passed)
        self.looks = {
            "expected": ladder.belief.expected,
            "damage": [step.outcome.damage for step in steps],
            "energy": [step.outcome.energy for step in steps],
            "passed": passed,
        }
        return None, {} if history.best is None else {history.best.number: 0.0}


def looked(folder: Path, cell: Path) -> Looks:
    """The looks of one cell's first seed, remembered in FOLDER/luck."""
    kept = folder / "luck" / f"{cell.name}.json"
    if kept.exists():
        found: Looks = json.loads(kept.read_text(encoding="utf-8"))
        return found
    model, *accelerator, budget, limit, search, calibration = cell.name.split("-")
    given = {
        "data": SAMPLES / "fashion_mnist.npz",
        "accelerator": "-".join(accelerator),
        "max_drop": float(limit),
        "search_samples": int(search),
        "calibration_samples": int(calibration),
    }
    copy = folder / "luck" / "work" / cell.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(cell / "seed-0", copy, symlinks=True, ignore=shutil.ignore_patterns("row.json", "plan.json"))
    run = Looking(SeedTask(SAMPLES / f"{model}.onnx", options_of(given), Contest((SAMPLER[0],), (SAMPLER[1],), 1, int(budget)), 0, copy), None)
    run.run()
    shutil.rmtree(copy)
    kept.write_text(json.dumps(run.looks), encoding="utf-8")
    return run.looks


def climbed(looks: Looks, luck: float) -> float:
    """The energy that the walk ends with, where the ladder is chosen for plans with so much luck of their own."""
    steps = tuple(_record(i, looks) for i in range(len(looks["damage"])))
    energy = 1.0
    for step in Ladder(steps, (), Belief(looks["expected"], luck)).climbed(MOST_LOOKS):
        if not looks["passed"][step.number]:
            break
        energy = step.outcome.energy
    return energy


def _record(i: int, looks: Looks) -> Record:
    return Record(i, np.array([i]), Outcome(looks["energy"][i], 0.0, 0.0, looks["damage"][i]), "", True, 0.0)


def likelihood(everything: Sequence[Looks], luck: float) -> float:
    """Logarithm of the probability of all looks: what a search's plans share is a mixture of normals, what each has of its own a normal."""
    nodes = np.linspace(-4.0, 4.0, 801)
    shared = np.concatenate([np.sqrt(max(spread**2 - luck**2, 1e-6)) * nodes for _, spread in SPREADS])
    weight = np.concatenate([share * np.exp(-(nodes**2) / 2.0) / np.exp(-(nodes**2) / 2.0).sum() for share, _ in SPREADS])
    total = 0.0
    for looks in everything:
        away = shared - np.log(np.array(looks["damage"]) / looks["expected"])[:, None]
        signs = np.where(looks["passed"], 1.0, -1.0)[:, None]
        total += float(np.log(weight @ np.exp(log_ndtr(signs * away / luck).sum(axis=0)) + 1e-300))
    return total


def cells_of(folder: Path) -> list[Path]:
    """The cells of the folder whose agent has finished; where the studies are not there, those whose looks are kept."""
    if (folder / "work").is_dir():
        return sorted(path.parents[2] for path in folder.glob(f"work/*/seed-0/{folder_name(*SAMPLER)}/row.json"))
    return sorted(folder / path.stem for path in (folder / "luck").glob("*.json"))


def lines(args: argparse.Namespace) -> Iterator[str]:
    """One for each search, then the means and the likelihoods."""
    found, energies = [], []
    for cell in cells_of(args.folder):
        if args.cells and not cell.name.startswith(tuple(args.cells)):
            continue
        looks = looked(args.folder, cell)
        if not looks["damage"]:
            continue
        found.append(looks)
        least = min([1.0, *(energy for energy, passed in zip(looks["energy"], looks["passed"], strict=True) if passed)])
        energies.append((least, climbed(looks, LUCK), climbed(looks, LUCKS[0])))
        shares = np.array(looks["damage"]) / looks["expected"]
        told = " ".join(f"{share:.2f}" if passed else f"({share:.2f})" for share, passed in zip(shares, looks["passed"], strict=True))
        yield f"{cell.name}: {told}; least {energies[-1][0]:.3f}, ladder {energies[-1][1]:.3f}, without luck {energies[-1][2]:.3f}"
    if found:
        least, ladder, without = np.exp(np.log(energies).mean(axis=0))
        yield f"{len(found)} searches, geometric means: least {least:.3f}, ladder {ladder:.3f}, without luck {without:.3f}"
        yield "luck: log likelihood  " + "  ".join(f"{luck}: {likelihood(found, luck):.1f}" for luck in LUCKS)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Every step of finished searches' ladders on the holdout.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", nargs="*", default=[], metavar="MODEL-ACCELERATOR", help="these cells alone (default: all)")
    for line in lines(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
