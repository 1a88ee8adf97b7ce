"""How long the channel groups of a network take, by its number of nodes: CPU time, median of three.

    OMP_NUM_THREADS=1 python benchmarks/group_speed.py [MODEL.onnx ...]

Without models: DenseNet-121 as the `onnx` package has it, and residual networks of 50 to 3,300 layers made here.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import hwc_onnx.graph.parse as parsing
from hwc_onnx.graph.channel_groups import channel_groups
from hwc_onnx.graph.parse import parse
from hwc_onnx.workspace import open_float_model

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_densenet121.onnx"


def residual_network(blocks: int, channels: int = 16) -> onnx.ModelProto:
    """Blocks of two convolutions around an identity; a 1x1 convolution to fresh channels every four."""
    rng = np.random.default_rng(0)
    nodes, constants = [], []

    def conv(x: str, kernel: int) -> str:
        name = f"c{len(nodes)}"
        weight = rng.normal(0, 0.1, (channels, channels, kernel, kernel)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"{name}_weight"))
        nodes.append(helper.make_node("Conv", [x, f"{name}_weight"], [name], pads=[kernel // 2] * 4))
        return name

    def apply(op: str, *inputs: str) -> str:
        name = f"{op.lower()}{len(nodes)}"
        nodes.append(helper.make_node(op, list(inputs), [name]))
        return name

    x = "x"
    for block in range(blocks):
        inner = conv(apply("Relu", conv(x, 3)), 3)
        x = apply("Relu", inner if block % 4 == 0 else apply("Add", inner, x))
        x = conv(x, 1) if block % 4 == 3 else x
    shape = [1, channels, 8, 8]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def timed(proto: onnx.ModelProto) -> tuple[int, int, float]:
    """Nodes, groups and CPU seconds of the group analysis of a normalized model."""
    seconds, count = [], 0

    def clocked(*arguments: object) -> object:
        nonlocal count
        for _ in range(3):
            started = time.process_time()
            found = channel_groups(*arguments)  # type: ignore[arg-type]
            seconds.append(time.process_time() - started)
        count = len(found)
        return found

    parsing.channel_groups = clocked  # type: ignore[assignment]
    try:
        graph = parse(proto)
    finally:
        parsing.channel_groups = channel_groups
    return len(graph.nodes), count, statistics.median(seconds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    paths = parser.parse_args().models or [LIGHT]
    print(f"{'network':28} {'nodes':>6} {'groups':>6} {'ms':>8} {'us/node':>8}")
    rows = [(path.stem, open_float_model(path, None).proto) for path in paths]
    rows += [(f"residual, {blocks} blocks", residual_network(blocks)) for blocks in (12, 60, 240, 960, 2350)]
    for name, proto in rows:
        nodes, groups, seconds = timed(proto)
        print(f"{name:28} {nodes:6} {groups:6} {1e3 * seconds:8.1f} {1e6 * seconds / nodes:8.1f}", flush=True)


if __name__ == "__main__":
    main()
