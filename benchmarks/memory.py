"""Peak memory of `apply` on a generated network with large activations and large outputs, and what it left out to stay there.

    python benchmarks/memory.py                     # images of 256 x 256, FOLDER for the model: a temporary one
    python benchmarks/memory.py --side 512

A segmentation network whose every tensor has the size of the image: a Conv to 64 channels, a depthwise one, one to 21 classes.
One sample has tensors of 16 MiB and outputs of 5 MiB at a side of 256, four times that at 512. Counted are anonymous pages
(RssAnon), sampled every 10 ms, besides what the imports take; large samples and Gram matrices lie in temporary files.
Each way to recover runs in a process of its own, without data, and with it (512 images, which are their own holdout too).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx
from large_model import memory
from onnx import TensorProto, helper, numpy_helper

CLASSES, WIDTH = 21, 64
CASES = ("none", "full", "sequential")


def generate(path: Path, side: int) -> None:
    """The network, with random weights."""
    rng = np.random.default_rng(0)
    sizes = {"first": (WIDTH, 3, 3, 3), "middle": (WIDTH, 1, 3, 3), "last": (CLASSES, WIDTH, 1, 1)}
    weights = [
        numpy_helper.from_array(rng.normal(0, (2 / np.prod(size[1:])) ** 0.5, size).astype(np.float32), name)
        for name, size in sizes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "middle"], ["c"], pads=[1, 1, 1, 1], group=WIDTH),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "last"], ["scores"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "dense", [value("image", TensorProto.FLOAT, ["batch", 3, side, side])],
        [value("scores", TensorProto.FLOAT, ["batch", CLASSES, side, side])], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def child(path: Path, recovery: str, data: Path | None) -> None:
    """Apply w8a8 and print the peak and the notes as JSON."""
    import hwc_onnx.api

    start, peak, done = memory()["RssAnon"], [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], memory()["RssAnon"])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.perf_counter()
    plan = hwc_onnx.api.uniform_plan(path, "w8a8")
    source = str(data) if data is not None else None
    applied = hwc_onnx.api.apply_plan(path, plan=plan, recovery=recovery, task="segmentation", data=source)
    done.set()
    watcher.join()
    found = {"mib": peak[0] - start, "seconds": time.perf_counter() - began, "notes": list(applied.notes)}
    print(json.dumps(found))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Peak memory of apply on a network with large tensors.")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--recovery", action="append", choices=CASES)
    parser.add_argument("--child", choices=CASES)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.folder / "dense.onnx", arguments.child, arguments.data)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path, data = Path(folder) / "dense.onnx", Path(folder) / "images.npz"
        generate(path, arguments.side)
        side = arguments.side
        pixels = np.random.default_rng(0).integers(0, 256, (512, 3, side, side), np.uint8)
        np.savez(data, x=pixels, x_holdout=pixels)
        each = side * side * 4 / 2**20
        print(f"one sample: tensors of {WIDTH * each:.0f} MiB, outputs of {CLASSES * each:.1f} MiB")
        for source in (None, data):
            for recovery in arguments.recovery or CASES:
                command = [sys.executable, __file__, folder, "--child", recovery]
                command += ["--data", str(source)] if source is not None else []
                ran = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(ran.stdout.splitlines()[-1])
                kind = "no data" if source is None else "data"
                print(f"{kind:8} {recovery:11} {found['mib']:7.0f} MiB {found['seconds']:6.0f} s")
                for note in found["notes"]:
                    print(f"         {note}", flush=True)


if __name__ == "__main__":
    main()
