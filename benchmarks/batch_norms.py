"""What re-estimating BatchNormalizations is worth in networks that keep them: damage without repair and with each part of it.

    OMP_NUM_THREADS=1 python benchmarks/batch_norms.py FOLDER                   # three networks, 3 seeds
    OMP_NUM_THREADS=1 python benchmarks/batch_norms.py FOLDER --model preactivation --seeds 1

None of the sample models has a BatchNormalization left, so small ones that do (`batch_norm_networks.py`) are trained first,
some three minutes each, and written to FOLDER, where a later run finds them.

neither   as stitched
layers    scales and biases of layers mended
both      scales and biases of BatchNormalizations too, as `--repairs statistics` does it
rebuilt   refitted layer after layer

Uniform plans on the first 2,048 search images, without equalization. Damage is the mean KL divergence of the class
probabilities from the original's, times 1,000, the median over seeds (a seed decides which images calibrate).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

from batch_norm_networks import NETWORKS, train

from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import make_reference
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.candidate import assemble
from hwc_onnx.rebuild import rebuild
from hwc_onnx.statistics_repair import StatisticsRepair
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import Opened, calibrate, open_float_model

DATA = Path(__file__).parent.parent / "sample_models" / "fashion_mnist.npz"
SETTINGS = (
    "w8a8",
    "w4a4",
    "w2a8",
    "w8a8,fine=obs:0.5",
    "w8a8,coarse=gram:0.3",
    "w16a16,fine=obs:0.5",
    "w16a16,coarse=gram:0.3",
)
COLUMNS = ("neither", "nodes", "layers", "both", "rebuilt")
IMAGES = 2048


def figures(opened: Opened, seed: int) -> Iterator[tuple[str, str, float]]:
    """(setting, column, damage) of one seed."""
    splits = make_splits(load_data(str(DATA), input_specs(opened.proto)), seed)
    reference = make_reference(opened.proto, splits.search.take(slice(0, IMAGES)))
    made = calibrate(opened, splits.calibration, seed=seed, repairs=("bias",))
    nodes, layers, both = (
        StatisticsRepair(made.proto, opened.graph, made.database, splits.calibration, layers=first, normalizations=second)
        for first, second in ((False, True), (True, False), (True, True))
    )
    for spec in SETTINGS:
        plan = uniform(opened.graph, parse_spec(spec))
        stitched = made.database.stitch(plan)
        rebuilt = rebuild(made.proto, opened.graph, plan, made.database, splits.calibration)
        made_by_column = (stitched, nodes(stitched), layers(stitched), both(stitched), rebuilt)
        for column, found in zip(COLUMNS, made_by_column, strict=True):
            model = assemble(made.proto, opened.graph, found, "measure").proto
            yield spec, column, measure(model, reference).damage


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Damage with and without re-estimated BatchNormalizations.")
    parser.add_argument("folder", type=Path, help="where the trained networks are kept")
    parser.add_argument("--model", action="append", choices=tuple(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    print(f"damage x 1,000, medians over {args.seeds} seeds\n")
    print(f"{'model':14} {'setting':23}" + "".join(f"{name:>9}" for name in COLUMNS))
    for name in args.model or NETWORKS:
        path = args.folder / f"{name}.onnx"
        if not path.exists():
            train(name, DATA, path)
        opened = open_float_model(path)
        seen: dict[tuple[str, str], list[float]] = {}
        for seed in range(args.seeds):
            for spec, column, damage in figures(opened, seed):
                seen.setdefault((spec, column), []).append(damage)
        for spec in SETTINGS:
            cells = [f"{1000 * statistics.median(seen[spec, column]):9.3f}" for column in COLUMNS]
            print(f"{name:14} {spec:23}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
