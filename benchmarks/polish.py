"""What polishing a rebuilt plan gains: the network as rebuilt, and three ways to go on from there, on the same samples.

    OMP_NUM_THREADS=1 python benchmarks/polish.py FOLDER [--models resnet20] [--settings w2a8] [--seeds 3] [--activation]
    python benchmarks/polish.py FOLDER --table

descent     more coordinate descent over single codes: what the time alone is worth
quadratic   AdaRound on moments, as `apply --polish` does it (hwc_onnx/polish.py)
activation  quadratic, then AdaRound on sampled patches with the Relu or Clip that follows and the bias, where one does
            (the asymmetric reconstruction of Nagel et al., ICML 2020, section 3.3); only with --activation

A seed decides which samples calibrate. Damage is the mean KL divergence of the class probabilities from the original's, in
thousandths, drop in points, both on held-out samples. Each result is a file of FOLDER, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from polish_variants import VARIANTS, Case

SETTINGS = ("w4a8", "w3a8", "w2a8")
MODELS = ("resnet20", "vgg_small", "mobilenetv2_small")


def run(path: Path, model: str, setting: str, seed: int, names: list[str], holdout: int) -> None:
    """Add what is missing to one file of results."""
    found = json.loads(path.read_text()) if path.exists() else {}
    missing = [name for name in names if name not in found]
    if not missing:
        return
    case = Case(model, setting, seed, holdout)
    for name in missing:
        started = time.perf_counter()
        stitched, error = VARIANTS[name](case)
        seconds = time.perf_counter() - started
        measured = case.measured(stitched)
        found[name] = {
            "damage": measured.damage,
            "drop": measured.drop_points,
            "error": error,
            "seconds": seconds,
        }
        path.write_text(json.dumps(found))
        print(f"{path.stem} {name}: {found[name]}", flush=True)


def table(folder: Path, models: list[str], settings: list[str], names: list[str]) -> None:
    """Medians over seeds."""
    print(f"{'model':<18} {'setting':<8} {'seeds':>5}  {'variant':<11} {'damage':>7} {'ratio':>6} {'drop':>6} {'error':>7} {'s':>5}")
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for model in models:
        for setting in settings:
            rows = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{model}-{setting}-*.json"))]
            for name in names:
                there = [row for row in rows if name in row]
                if not there:
                    continue
                damage, drop, error, seconds = (
                    statistics.median(row[name][figure] for row in there)
                    for figure in ("damage", "drop", "error", "seconds")
                )
                each = [row[name]["damage"] / row["rebuilt"]["damage"] for row in there]
                ratios[name] += each
                print(
                    f"{model:<18} {setting:<8} {len(there):>5}  {name:<11} {1e3 * damage:>7.2f} {statistics.median(each):>6.2f} "
                    f"{drop:>+6.2f} {error:>7.4f} {seconds:>5.0f}"
                )
    for name, each in ratios.items():
        if each:
            better = sum(one < 1.0 for one in each)
            print(f"{name}: damage / rebuilt damage, median {statistics.median(each):.2f}; below 1 in {better} of {len(each)}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Damage of rebuilt plans before and after polishing.")
    parser.add_argument("folder", type=Path, help="where results are kept")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--activation", action="store_true", help="also with the activation function, on patches")
    parser.add_argument("--holdout", type=int, default=3000, help="held-out samples to measure on, at most")
    parser.add_argument("--table", action="store_true", help="print what is recorded, run nothing")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    names = ["rebuilt", "descent", "quadratic", *(["activation"] if args.activation else [])]
    for seed in range(0 if args.table else args.seeds):
        for setting in args.settings:
            for model in args.models:
                run(args.folder / f"{model}-{setting}-{seed}.json", model, setting, seed, names, args.holdout)
    table(args.folder, args.models, args.settings, list(VARIANTS))


if __name__ == "__main__":
    main()
