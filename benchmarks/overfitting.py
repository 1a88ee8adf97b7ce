"""What a search owes to its own samples: the best plan's drop on them and on samples that it never saw.

    python benchmarks/overfitting.py FOLDER                     # resnet20 and vgg_small on edge-flex, 3 seeds, 100 evaluations
    python benchmarks/overfitting.py FOLDER --models vit_tiny --seeds 8 --search-samples 512
    python benchmarks/overfitting.py FOLDER --table

Each search runs twice on the same samples: accepting drops as measured, and with the guard of hwc_onnx/search/guard.py.
A seed decides the data split and the search. Gap: drop on the 10,000 test images less drop on the search samples, in
points. Refitted closing plans are left out. Each result is a file of FOLDER, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from hwc_onnx.accuracy.measure import measure_paired
from hwc_onnx.comparison.contest import Contest
from hwc_onnx.comparison.seed_run import SeedRun, SeedTask, config_of
from hwc_onnx.job.running import Running
from hwc_onnx.job.sampling import samples_of
from hwc_onnx.options import Options
from hwc_onnx.runfolder import RunFolder
from hwc_onnx.search.study import run_search

SAMPLES = Path(__file__).parent.parent / "sample_models"


def run(folder: Path, model: str, seed: int, args: argparse.Namespace) -> None:
    """Both searches of one model and seed that are not there yet."""
    wanted = {guard: folder / f"{model}-{seed}-{'guard' if guard else 'plain'}.json" for guard in (False, True)}
    if all(path.exists() for path in wanted.values()):
        return
    options = Options(
        data=SAMPLES / "fashion_mnist.npz",
        accelerator=args.accel,
        trials=args.trials,
        max_drop=args.max_drop,
        search_samples=args.search_samples,
    )
    contest = Contest((args.sampler,), ("seeds",), 1, args.trials)
    job = SeedRun(SeedTask(SAMPLES / f"{model}.onnx", options, contest, seed, folder / f"{model}-{seed}"), None)
    data, splits = samples_of(job.opened, job.options, job.tell)
    digests = {"model": job.opened.loaded.digest, "data": splits.digest, "accelerator": job.profile.digest()}
    with RunFolder(job.task.folder, config_of(job.options, contest, digests)) as kept:
        running = Running(job, kept, data, splits)
        holdout = job._holdout(running, splits)
        for guard, path in wanted.items():
            objective = running.objective()
            found = run_search(objective, sampler=args.sampler, trials=args.trials, seed=seed, patience=0, guard=guard)
            if found.stopped_by == "interrupted":
                raise KeyboardInterrupt
            best = found.history.searched().best
            assert best is not None
            drop = measure_paired(running.candidate(objective, best).proto, holdout).evaluation.drop_points
            row = {
                "saved": 1.0 - best.outcome.energy,
                "search": best.outcome.drop_points,
                "holdout": drop,
                "seconds": found.seconds,
                "origin": best.origin,
            }
            path.write_text(json.dumps(row))
            print(path.stem, row, flush=True)


def table(folder: Path) -> None:
    """Medians over seeds."""
    print(f"{'model':<18} {'acceptance':<10} {'seeds':>5} {'saved':>7} {'search':>7} {'holdout':>8} {'gap':>6}")
    models = sorted({path.stem.rsplit("-", 2)[0] for path in folder.glob("*.json")})
    for model in models:
        for name in ("plain", "guard"):
            rows = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{model}-*-{name}.json"))]
            if rows:
                saved, search, holdout = (statistics.median(row[key] for row in rows) for key in ("saved", "search", "holdout"))
                gap = statistics.median(row["holdout"] - row["search"] for row in rows)
                print(
                    f"{model:<18} {name:<10} {len(rows):>5} {100 * saved:>6.1f}% {search:>7.2f} {holdout:>8.2f} {gap:>6.2f}"
                )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Drop on search samples and on unseen samples, with and without the guard.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["resnet20", "vgg_small"])
    parser.add_argument("--accel", default="edge-flex")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--search-samples", type=int)
    parser.add_argument("--sampler", default="composite")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if not args.table:
        for seed in range(args.seeds):
            for model in args.models:
                run(args.folder, model, seed, args)
    table(args.folder)


if __name__ == "__main__":
    main()
