"""Peak memory of inspect, profile, writing and apply on a generated model above 2 GB, against its promise.

    python benchmarks/large_model.py [FOLDER] [--gib 3]

The promise: besides what the imports take, never more than 1.5 times the largest tensor plus ALLOWANCE. Counted are
anonymous pages (RssAnon of /proc/self/status, sampled every 10 ms), which the operating system cannot drop; pages of
mapped files can be dropped at any time and are printed beside it. Each step runs in a process of its own.
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
from onnx import TensorProto, helper

ALLOWANCE_MIB = 400
"""For activations, the graph, the cost model's tables and ONNX Runtime's own memory."""

WIDTH = 8192
STEPS = {
    "inspect": "import hwc_onnx; hwc_onnx.inspect(path)",
    "profile": "import hwc_onnx; hwc_onnx.profile(path)",
    "write": (
        "from hwc_onnx.workspace import open_model; from hwc_onnx.export import write_model; "
        "write_model(open_model(path).proto, path.with_name('written.onnx'))"
    ),
    "apply": (
        "import hwc_onnx; plan = hwc_onnx.uniform_plan(path, 'w8a8'); "
        "hwc_onnx.apply_plan(path, plan=plan, recovery='none').save(path.with_name('applied.onnx'))"
    ),
}


def generate(folder: Path, gib: float) -> tuple[Path, int]:
    """Square linear layers with Relu between them; (path, bytes of the largest tensor). One layer is in memory at a time."""
    tensor_bytes = WIDTH * WIDTH * 4
    count = max(1, round(gib * 2**30 / tensor_bytes))
    rng = np.random.default_rng(0)
    initializers, nodes, name = [], [], "x"
    with open(folder / "large.weights", "wb") as file:
        for layer in range(count):
            for _ in range(8):
                file.write(rng.standard_normal((WIDTH // 8, WIDTH), np.float32) * np.float32(1 / WIDTH**0.5))
            tensor = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "large.weights"), ("offset", layer * tensor_bytes), ("length", tensor_bytes)):
                tensor.external_data.add(key=key, value=str(value))
            initializers.append(tensor)
            nodes.append(helper.make_node("MatMul", [name, f"w{layer}"], [f"m{layer}"], name=f"layer{layer}"))
            name = f"m{layer}"
            if layer + 1 < count:
                nodes.append(helper.make_node("Relu", [name], [f"r{layer}"]))
                name = f"r{layer}"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "large", [value("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [value(name, TensorProto.FLOAT, ["batch", WIDTH])], initializers,
    )  # fmt: skip
    path = folder / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path, tensor_bytes


def memory() -> dict[str, float]:
    """RssAnon and RssFile of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")}


def child(step: str, path: Path) -> None:
    """Run one step and print its peaks as JSON."""
    # what the imports take is not part of the step
    import onnxruntime  # noqa: F401

    import hwc_onnx.api  # noqa: F401

    start, peak, done = memory(), memory(), threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            for name, value in memory().items():
                peak[name] = max(peak[name], value)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.perf_counter()
    exec(STEPS[step], {"path": path})
    done.set()
    watcher.join()
    anonymous = peak["RssAnon"] - start["RssAnon"]
    print(json.dumps({"anonymous_mib": anonymous, "mapped_mib": peak["RssFile"], "seconds": time.perf_counter() - began}))


def main() -> int:
    """Print the table; 1 when a step takes more than was promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--gib", type=float, default=3.0)
    parser.add_argument("--child", choices=list(STEPS))
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.folder / "large.onnx")
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path, largest = generate(Path(folder), arguments.gib)
        limit = 1.5 * largest / 2**20 + ALLOWANCE_MIB
        size = (path.parent / "large.weights").stat().st_size / 2**30
        print(f"model {size:.2f} GiB, largest tensor {largest >> 20} MiB, allowed {limit:.0f} MiB of memory")
        kept = True
        for step in STEPS:
            command = [sys.executable, __file__, folder, "--child", step]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            good = found["anonymous_mib"] <= limit
            kept &= good
            print(
                f"{step:8} {found['anonymous_mib']:7.0f} MiB in memory, {found['mapped_mib']:6.0f} MiB of mapped files, "
                f"{found['seconds']:5.1f} s  {'kept' if good else 'BROKEN'}"
            )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
