"""How often candidates are stopped early that a full measurement would have accepted, and what stopping saves.

    python benchmarks/early_stop.py FOLDER                      # resnet20 on edge-flex, 500 candidates
    python benchmarks/early_stop.py FOLDER --model vit_tiny --candidates 200
    python benchmarks/early_stop.py FOLDER --table

Candidates are the solver's plans at drops from 0.05 to 2 limits, with damages multiplied by random factors, each measured on
all search samples. Then two rules are played over the recorded losses, with looks after 256, 512, 1,024, ... samples:

constraint  ours (hwc_onnx/accuracy/early_stop.py): the drop against the limit
wilcoxon    Optuna's WilcoxonPruner: the losses against those of the best candidate so far (p below 0.1, its default)

wrong: of the candidates that the full measurement accepts, how many were stopped, with a 95 % interval (Wilson). missed: of
those accepted and better than all before, how many were stopped. caught: of the candidates that are not accepted, how many were
stopped. images: how many were run, of all. Candidates are played in the order in which they were drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from hwc_onnx.accuracy.early_stop import EarlyStop
from hwc_onnx.accuracy.measure import measure_paired
from hwc_onnx.accuracy.statistics import wilson_interval
from hwc_onnx.candidate import assemble
from hwc_onnx.comparison.contest import Contest
from hwc_onnx.comparison.seed_run import SeedRun, SeedTask, config_of
from hwc_onnx.job.running import Running
from hwc_onnx.job.sampling import samples_of
from hwc_onnx.options import Options
from hwc_onnx.runfolder import RunFolder
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.history import History
from hwc_onnx.search.model import Model
from hwc_onnx.search.problem import ACCEPTED_ERRORS
from hwc_onnx.search.seeds import middle_starts
from hwc_onnx.search.space import Space
from hwc_onnx.search.surrogate import DamageTable

SAMPLES = Path(__file__).parent.parent / "sample_models"
SPREAD = 0.5
"""Of the random factors on the log of damages."""
EVERY = 25
"""Candidates between two writings of the file."""


def collect(file: Path, args: argparse.Namespace) -> None:
    """Measure the candidates that are missing: their energies and losses per sample."""
    energies, losses = (list(array) for array in np.load(file).values()) if file.exists() else ([], [])
    if len(energies) >= args.candidates:
        return
    options = Options(data=SAMPLES / "fashion_mnist.npz", accelerator=args.accel, max_drop=args.max_drop)
    contest = Contest(("knapsack",), ("seeds",), 1, 100)
    job = SeedRun(SeedTask(SAMPLES / f"{args.model}.onnx", options, contest, 0, args.folder / "run"), None)
    data, splits = samples_of(job.opened, job.options, job.tell)
    digests = {"model": job.opened.loaded.digest, "data": splits.digest, "accelerator": job.profile.digest()}
    with RunFolder(job.task.folder, config_of(job.options, contest, digests)) as kept:
        running = Running(job, kept, data, splits)
        objective = running.objective()
        space, table = Space(objective.units), DamageTable(objective)
        decoder = Decoder(objective, space)
        model = Model(objective, table, History(space, objective.limit_points), np.random.default_rng(0))
        for number in range(len(energies), args.candidates):
            rng = np.random.default_rng([1, number])
            drop = objective.limit_points * float(np.exp(rng.uniform(np.log(0.05), np.log(2.0))))
            factors = SPREAD * rng.normal(size=len(space.sizes))
            plan = model.decode(decoder, drop, middle_starts(space, objective), factors).choices
            built = assemble(running.calibrated.proto, job.opened.graph, objective.stitched(plan), "measure")
            losses.append(measure_paired(built.proto, running.reference).differences)
            energies.append(objective.energy(plan))
            if (number + 1) % EVERY == 0 or number + 1 == args.candidates:
                np.savez(file, energies=np.array(energies), losses=np.array(losses))
                print(f"{number + 1} of {args.candidates} candidates measured", flush=True)


def stopped_at(looks: tuple[int, ...], stops: list[bool], total: int) -> int:
    """Samples run until the first look that stops, all where none does."""
    return next((look for look, stop in zip(looks, stops, strict=True) if stop), total)


def by_wilcoxon(losses: np.ndarray, best: np.ndarray, looks: tuple[int, ...], p: float = 0.1) -> list[bool]:
    """What WilcoxonPruner decides at each look: the candidate's losses are larger than the best one's, one-sided."""
    from scipy.stats import wilcoxon

    found = []
    for look in looks:
        apart = losses[:look] - best[:look]
        larger = apart.any() and wilcoxon(apart, alternative="greater", zero_method="zsplit").pvalue < p
        found.append(bool(larger) and bool(apart.mean() > 0.0))
    return found


def table(file: Path, limit: float) -> None:
    """Both rules over the same candidates."""
    energies, losses = np.load(file).values()
    total = losses.shape[1]
    drops, errors = 100.0 * losses.mean(axis=1), 100.0 * losses.std(axis=1, ddof=1) / np.sqrt(total)
    accepted = drops + ACCEPTED_ERRORS * errors <= limit
    rule = EarlyStop(limit, margin=ACCEPTED_ERRORS)
    looks = rule.looks(total)
    print(f"{len(energies)} candidates, {int(accepted.sum())} of them accepted when measured on all {total} samples")
    print(f"{'rule':<11} {'wrong':>7} {'95 % interval':>16} {'missed':>9} {'caught':>8} {'images':>8}")
    for name in ("constraint", "wilcoxon"):
        seen, improving, missed, best = np.full(len(energies), total), 0, 0, None
        for number, one in enumerate(losses):
            if name == "constraint":
                stops = [rule.stops(one[:look], total, 100.0) for look in looks]
            else:
                stops = [False] * len(looks) if best is None else by_wilcoxon(one, losses[best], looks)
            seen[number] = stopped_at(looks, stops, total)
            better = accepted[number] and (best is None or energies[number] < energies[best])
            improving += better
            missed += better and seen[number] < total
            if better and seen[number] == total:
                best = number
        stopped = seen < total
        wrong = int((stopped & accepted).sum())
        low, high = wilson_interval(float(wrong), int(accepted.sum()))
        print(
            f"{name:<11} {wrong / max(int(accepted.sum()), 1):>7.1%} {f'{low:.1%} .. {high:.1%}':>16} {f'{missed}/{improving}':>9} "
            f"{(stopped & ~accepted).sum() / max(int((~accepted).sum()), 1):>8.1%} {seen.mean() / total:>8.1%}"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Realised error rate of early stopping, and what it saves.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--accel", default="edge-flex")
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    file = args.folder / f"{args.model}.npz"
    if not args.table:
        collect(file, args)
    table(file, args.max_drop)


if __name__ == "__main__":
    main()
