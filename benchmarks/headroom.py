"""How much better plans could a search make if it had measured more: the solver's plans after few and after many trials.

    OMP_NUM_THREADS=1 python benchmarks/equal_budget.py FOLDER --models resnet20 --accels edge-flex --seeds 1
    OMP_NUM_THREADS=1 HWC_ONNX_THREADS=1 python benchmarks/headroom.py FOLDER --model resnet20 --accel edge-flex --seed 0

Every study of the cell is a set of measured plans. The damage model is fitted to such a set, the solver makes its plans for five
damages, and these are measured on the holdout, which no search saw. Between the five the energy at one damage is read off (straight
lines in logarithms), so that luck on the search samples plays no part. `first plans` has the plans that all searches begin with, `all`
what all searches measured together: what lies between the two is what any way of choosing trials could win or lose with this
model of damages.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwc_onnx.accuracy.measure import measure_paired
from hwc_onnx.accuracy.reference import Reference, make_reference, with_baseline
from hwc_onnx.candidate import assemble
from hwc_onnx.comparison.comparing import options_of
from hwc_onnx.comparison.contest import Contest
from hwc_onnx.comparison.seed_run import SeedRun, SeedTask, config_of
from hwc_onnx.job.running import Running
from hwc_onnx.job.sampling import samples_of
from hwc_onnx.runfolder import RunFolder
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.history import History, Record, recall
from hwc_onnx.search.model import Model
from hwc_onnx.search.objective import Objective
from hwc_onnx.search.seeds import derived, first_plans, middle_starts
from hwc_onnx.search.space import Space
from hwc_onnx.search.storage import STUDY_NAME, open_storage
from hwc_onnx.search.surrogate import DamageTable

SAMPLES = Path(__file__).parent.parent / "sample_models"
AIMS = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Damages aimed at, over the one at which the energies are read off."""


class Cell:
    """One network, accelerator and seed, prepared as its searches were."""

    def __init__(self, args: argparse.Namespace, place: Path) -> None:
        given = {
            "data": SAMPLES / "fashion_mnist.npz",
            "accelerator": args.accel,
            "max_drop": args.max_drop,
            "search_samples": args.search_samples,
            "calibration_samples": args.calibration_samples,
        }
        contest = Contest(("knapsack",), ("seeds",), args.seed + 1, args.budget)
        job = SeedRun(SeedTask(SAMPLES / f"{args.model}.onnx", options_of(given), contest, args.seed, place), None)
        data, splits = samples_of(job.opened, job.options, job.tell)
        digests = {"model": job.opened.loaded.digest, "data": splits.digest, "accelerator": job.profile.digest()}
        with RunFolder(place, config_of(job.options, contest, digests)) as folder:
            self.running = Running(job, folder, data, splits)
            self.objective: Objective = self.running.objective()
        holdout = make_reference(job.opened.proto, splits.holdout, self.running.reference.metric)
        self.holdout: Reference = with_baseline(holdout, self.running.baseline.proto)
        self.space = Space(self.objective.units, "menu")
        self.table, self.decoder = DamageTable(self.objective), Decoder(self.objective, self.space)

    def studies(self, place: Path) -> dict[str, list[Record]]:
        """The trials of each search, without refitted plans, in the menus' numbers."""
        import optuna

        found = {}
        for journal in sorted(place.glob("*.*/study.journal")):
            study = optuna.load_study(study_name=STUDY_NAME, storage=open_storage(journal))
            history = History(self.space, self.objective.limit_points)
            history.sync(study)
            found[journal.parent.name] = history.searched().records
        return found

    def energies(self, records: Sequence[Record], damage: float) -> tuple[list[float], list[float]]:
        """Energies and holdout damages of the plans that the solver makes with a model of these trials."""
        history = History(self.space, self.objective.limit_points)
        for number, record in enumerate({record.choices.tobytes(): record for record in records}.values()):
            history.append(replace(record, number=number, counted=True))
        recall(self.objective, history.records)
        model = Model(self.objective, self.table, history, derived(0, "headroom", len(history)))
        starts = [*([history.best.choices] if history.best else []), *middle_starts(self.space, self.objective)]
        energy, seen = [], []
        for aim in AIMS:
            choices = model.decode_damage(self.decoder, aim * damage, starts).choices
            outcome = self.objective.evaluate(choices)
            stitched = self.objective.stitched(choices)
            made = assemble(self.running.calibrated.proto, self.running.opened.graph, stitched)
            energy.append(outcome.energy)
            seen.append(float(measure_paired(made.proto, self.holdout).evaluation.damage))
        return energy, seen


def at_damage(energy: Sequence[float], damage: Sequence[float], wanted: float) -> float:
    """The energy at one damage, between the plans' and beyond them on the line through all of them."""
    order = np.argsort(damage)
    logs, values = np.log(np.asarray(damage)[order]), np.log(np.asarray(energy)[order])
    if not logs[0] <= np.log(wanted) <= logs[-1]:
        return float(np.exp(np.polyval(np.polyfit(logs, values, 1), np.log(wanted))))
    return float(np.exp(np.interp(np.log(wanted), logs, values)))


def rows(args: argparse.Namespace) -> Iterator[str]:
    """The table."""
    source = next(args.folder.glob(f"work/{args.model}-{args.accel}-{args.budget}-{args.max_drop:g}-*/seed-{args.seed}"))
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "seed"
        shutil.copytree(source, place, ignore=shutil.ignore_patterns(".lock", "config.resolved.yaml"))
        cell = Cell(args, place)
        studies = cell.studies(place)
        everything = [record for records in studies.values() for record in records]
        begun = next(records for name, records in studies.items() if name.endswith(".seeds"))[: first_plans("seeds")]
        accepted = [record.outcome.damage for record in everything if record.outcome.accepted(args.max_drop)]
        damage = float(np.quantile(accepted, 0.9))
        yield f"{args.model} on {args.accel}, seed {args.seed}: energy over INT8's at a damage of {damage:.4f} on the holdout"
        yield f"{'model fitted to':<24} {'trials':>6}  {'energy':>6}"
        sets = {"first plans": begun, **studies, "all": everything}
        for name, records in sets.items():
            yield f"{name:<24} {len(records):>6}  {at_damage(*cell.energies(records, damage), damage):.4f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="What more trials could teach the solver.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--accel", default="edge-flex")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=100)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--search-samples", type=int, default=512)
    parser.add_argument("--calibration-samples", type=int, default=256)
    for row in rows(parser.parse_args()):
        print(row, flush=True)


if __name__ == "__main__":
    main()
