"""What the layer database costs: seconds for all of it, memory of calibration, milliseconds for one candidate.

    OMP_NUM_THREADS=1 python benchmarks/database_speed.py
    OMP_NUM_THREADS=1 python benchmarks/database_speed.py --generated FOLDER --write docs/recovery-results.md
    OMP_NUM_THREADS=1 python benchmarks/database_speed.py --only candidates --runs 7

All of it: every algorithm at RATIOS (patterns at their own), every width from 8 to 2 bits, every layer; a coarse-grained
algorithm makes an entry of each layer that reads the channels. Then, for EfficientNet-Lite0 (`make samples`): the peak
resident memory of calibrating with 1,024 images, beside that of a process that only loads them, and the median time to
stitch a plan, assemble the model and open it. Each line is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx

from hwc_onnx.accuracy.runner import open_session, usable_threads
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.candidate import assemble
from hwc_onnx.database import LayerDatabase, Request
from hwc_onnx.graph.pruned import NM_PATTERNS
from hwc_onnx.plan import LayerConfig
from hwc_onnx.pruning.table import COARSE, FINE
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import Opened, calibrate, load_samples, open_float_model

SAMPLES = Path(__file__).parent.parent / "sample_models"
RATIOS = (0.1, 0.25, 0.4, 0.5, 0.6, 0.75)
WIDTHS = tuple(range(8, 1, -1))
IMAGES = 1024
CANDIDATES = ("w8a8", "w4a8", "w4a4", "w3a6", "w4a8,fine=obs:0.5", "w8a8,fine=magnitude:0.3")
ROUNDS = 5
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"


def everything(opened: Opened, database: LayerDatabase) -> list[Request]:
    """A request for each layer under each setting."""
    settings = [("none", 0.0)]
    settings += [(name, 1 - NM_PATTERNS[name][0] / NM_PATTERNS[name][1]) for name in FINE if name in NM_PATTERNS]
    settings += [(name, ratio) for name in FINE if name not in NM_PATTERNS for ratio in RATIOS]
    requests: list[Request] = [
        (key, LayerConfig(algorithm=name, ratio=ratio, weight_bits=bits), None, "none")
        for key in database.views
        for name, ratio in settings
        for bits in WIDTHS
    ]
    for group in opened.graph.channel_groups:
        if group.locked_because is not None or not group.producers:
            continue
        for name in COARSE:
            for ratio in RATIOS:
                keep = {group.root: database.keep(group.root, name, ratio)}
                for key in group.consumers:
                    if key in database.views:
                        cut = database.input_keep(key, keep)
                        requests += [(key, LayerConfig(weight_bits=bits), cut, name) for bits in WIDTHS]
    return requests


def whole_database(opened: Opened, samples: Samples) -> str:
    """Seconds for every entry, calibration apart."""
    calibrated = calibrate(opened, samples, seed=0)
    started = time.perf_counter()
    requests = everything(opened, calibrated.database)
    made = calibrated.database.prepare(requests)
    seconds = time.perf_counter() - started
    return (
        f"whole database: {seconds:.0f} s for {len(requests)} settings of layers ({made} entries made), "
        f"calibration with {len(samples)} images {calibrated.seconds:.1f} s"
    )


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def calibration_memory(opened: Opened, samples: Samples) -> str:
    """Peak memory of calibration."""
    before = peak_mib()
    calibrated = calibrate(opened, samples, seed=0)
    return (
        f"calibration with {len(samples)} images: peak {peak_mib():.0f} MiB, {before:.0f} MiB with model and images "
        f"loaded; {calibrated.seconds:.1f} s"
    )


def candidates(opened: Opened, samples: Samples) -> str:
    """Milliseconds to stitch, assemble and open one candidate, entries made beforehand."""
    database = calibrate(opened, samples, seed=0).database
    plans = [uniform(opened.graph, parse_spec(spec)) for spec in CANDIDATES]
    for plan in plans:
        database.stitch(plan)
    rows = []
    for plan in plans * ROUNDS:
        moments = [time.perf_counter()]
        stitched = database.stitch(plan)
        moments.append(time.perf_counter())
        made: onnx.ModelProto = assemble(opened.proto, opened.graph, stitched, "measure").proto
        moments.append(time.perf_counter())
        open_session(made, level="fake_quant")
        moments.append(time.perf_counter())
        rows.append([1000 * (after - before) for before, after in pairwise(moments)])
    stitch, build, session = (statistics.median(column) for column in zip(*rows, strict=True))
    total = statistics.median(sum(row) for row in rows)
    parts = f"{stitch:.0f} ms stitch + {build:.0f} ms assemble + {session:.0f} ms open the session"
    return f"one candidate: {total:.0f} ms = {parts}"


MEASURES: dict[str, Callable[[Opened, Samples], str]] = {
    "database": whole_database,
    "memory": calibration_memory,
    "candidates": candidates,
}
LINES = (
    ("resnet20", "database", 0),
    ("efficientnet_lite0", "database", 0),
    ("efficientnet_lite0", "memory", IMAGES),
    ("efficientnet_lite0", "candidates", 64),
)


def one(model: Path, data: Path, measure: str, images: int) -> str:
    """One measure in this process; `images` 0: as many as calibrate by default."""
    opened = open_float_model(model)
    loaded = load_samples(str(data), opened.proto, None, None)
    # a split would also prepare the images that are not calibrated with
    samples = loaded.pool.samples(np.arange(images)) if images else make_splits(loaded, 0).calibration
    return MEASURES[measure](opened, samples)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Seconds and memory of the layer database.")
    parser.add_argument("--generated", type=Path, default=SAMPLES / "generated", help="where `make samples` wrote")
    parser.add_argument("--only", choices=list(MEASURES), action="append", help="take these measures only")
    parser.add_argument("--runs", type=int, default=1, help="processes for each line, each printed")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the lines between the marks of this page")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        model, data, measure, images = json.loads(args.child)
        print(one(Path(model), Path(data), measure, images))
        return
    shown = [f"{usable_threads()} threads"]
    for name, measure, images in LINES:
        if args.only and measure not in args.only:
            continue
        home, data = SAMPLES, "fashion_mnist.npz"
        if not (SAMPLES / f"{name}.onnx").exists():
            home, data = args.generated, "natural_crops.npz"
        child = json.dumps([str(home / f"{name}.onnx"), str(home / data), measure, images])
        for _ in range(args.runs):
            ended = subprocess.run([sys.executable, __file__, "--child", child], stdout=subprocess.PIPE, text=True, check=False)
            shown.append(f"{name}: {ended.stdout.strip() if ended.returncode == 0 else f'failed, exit {ended.returncode}'}")
            print(shown[-1], flush=True)
    if args.write:
        page = args.write.read_text(encoding="utf-8")
        head, rest = page.split(BEGIN)
        text = f"{head}{BEGIN}\n```text\n" + "\n".join(shown) + f"\n```\n{END}{rest.split(END)[1]}"
        args.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
