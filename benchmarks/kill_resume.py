"""Does a search that is killed again and again end with the plans of one that was left alone, to the last byte?

    python benchmarks/kill_resume.py FOLDER                  # resnet20 on edge-flex, 20 kills
    python benchmarks/kill_resume.py FOLDER --kills 5 --trials 16 --sampler tpe

A first process searches undisturbed. A second run has its process killed (SIGKILL) at random points, each time after a random
number of further trials and a random part of a trial or of the preparation, and is started again by the same call. Both keep what
they need in FOLDER; the second begins with a copy of the first one's layer database, which does not depend on the search.

Compared are the plans of all trials in order with what was measured, plan.json and the written file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import hwc_onnx
from hwc_onnx.events import Event, TrialDone
from hwc_onnx.result import sha256
from hwc_onnx.search.storage import STUDY_NAME, open_storage

SAMPLES = Path(__file__).parent.parent / "sample_models"
CLOCK = ("seconds",)
"""What differs between any two runs."""


def search(args: argparse.Namespace) -> None:
    """The search itself, in a process of its own; says how many trials there are."""

    def tell(event: Event) -> None:
        if isinstance(event, TrialDone):
            print(event.evaluations, flush=True)

    hwc_onnx.compress(
        SAMPLES / f"{args.model}.onnx",
        data=SAMPLES / "fashion_mnist.npz",
        accelerator=args.accel,
        sampler=args.sampler,
        trials=args.trials,
        seed=args.seed,
        search_samples=512,
        calibration_samples=128,
        output=args.folder / "out.onnx",
        run_dir=args.folder / "run",
        on_event=tell,
    )


def start(args: argparse.Namespace, folder: Path) -> subprocess.Popen[str]:
    """The same call as ever, in a new process."""
    options = [f"--{name}={getattr(args, name)}" for name in ("model", "accel", "sampler", "trials", "seed")]
    return subprocess.Popen([sys.executable, __file__, str(folder), "--child", *options], stdout=subprocess.PIPE, text=True)


def undisturbed(args: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """Run to the end; seconds until the first trial that is told, and for each trial after it."""
    began, told = time.monotonic(), []
    with start(args, folder) as child:
        assert child.stdout is not None
        for _ in child.stdout:
            told.append(time.monotonic() - began)
    if child.returncode:
        raise SystemExit(f"the search failed with code {child.returncode}")
    return told[0], (told[-1] - told[0]) / max(len(told) - 1, 1)


def killed(args: argparse.Namespace, folder: Path, preparing: float, trial: float) -> list[str]:
    """Kill and start again until there were `args.kills` kills, then run to the end; where each kill was."""
    rng = np.random.default_rng(args.seed)
    points: list[str] = []
    while len(points) < args.kills:
        more = int(rng.integers(0, 3))
        rest = float(rng.random()) * (trial if more else preparing)
        with start(args, folder) as child:
            assert child.stdout is not None
            lines = [line for _, line in zip(range(more), child.stdout, strict=False)]
            time.sleep(rest)
            ended = child.poll() is not None
            child.kill()
        if ended:
            raise SystemExit(f"the search ended after {len(points)} kills; give it more --trials")
        points.append(f"after trial {lines[-1].strip()}" if lines else "before a trial was done")
        print(f"kill {len(points)}: {points[-1]}, {rest:.1f} s later", flush=True)
    undisturbed(args, folder)
    return points


def trials(folder: Path) -> list[dict[str, Any]]:
    """What a study knows of each trial, but for the clock."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name=STUDY_NAME, storage=open_storage(folder / "run" / "study.journal"))
    found = []
    for one in study.get_trials(deepcopy=False):
        if "outcome" in one.user_attrs:
            outcome = {name: value for name, value in one.user_attrs["outcome"].items() if name not in CLOCK}
            same = {name: one.user_attrs.get(name) for name in ("plan", "origin", "learning")}
            found.append({**same, "outcome": outcome})
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Kill a search at random points and compare it with one that was left alone.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--accel", default="edge-flex")
    parser.add_argument("--sampler", default="composite")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        search(args)
        return
    whole, broken = args.folder / "whole", args.folder / "killed"
    for folder in (whole, broken):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    undisturbed(args, whole)
    (broken / "run").mkdir()
    shutil.copytree(whole / "run" / "cache", broken / "run" / "cache")
    clean = args.folder / "timing"
    shutil.rmtree(clean, ignore_errors=True)
    (clean / "run").mkdir(parents=True)
    shutil.copytree(whole / "run" / "cache", clean / "run" / "cache")
    preparing, trial = undisturbed(args, clean)
    print(f"undisturbed: {args.trials} trials, {preparing:.0f} s until the first, {trial:.1f} s for each", flush=True)
    points = killed(args, broken, preparing, trial)
    left, right = trials(whole), trials(broken)
    same = sum(json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True) for a, b in zip(left, right, strict=False))
    print(f"{args.model}, {args.sampler}: {len(points)} kills, {sum('before' in p for p in points)} of them before a trial was done")
    print(f"trials with the same plan, origin and measurement: {same} of {len(left)} (killed run: {len(right)})")
    for name in ("run/plan.json", "out.onnx"):
        hashes = [sha256((folder / name).read_bytes()) for folder in (whole, broken)]
        print(f"{name}: {'the same bytes' if hashes[0] == hashes[1] else 'DIFFERENT'} ({hashes[0][:12]}, {hashes[1][:12]})")


if __name__ == "__main__":
    main()
