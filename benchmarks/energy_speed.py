"""How long the energy of a network takes, cold and warm, against running the network once.

    OMP_NUM_THREADS=1 python benchmarks/energy_speed.py [--accelerator edge-flex] [--repeats 5]

Cold: from a loaded layer graph to the INT8 energy of every node, with no mapping searched before and no cache on
disk. Profile: the same with the unquantized network beside it, and the model file opened, read and normalized first.
Warm: the energy of a variant that was never asked for before (random widths and densities; a search asks this), and of
one that was. Inference: one float `session.run` of ONNX Runtime, one sample, one thread. All are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.cost.window import rows_moved
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.plan import Achieved, CompressionPlan, LayerConfig, with_plan
from hwc_onnx.workspace import open_model

SAMPLES = Path(__file__).parent.parent / "sample_models"
NETWORKS = ("mobilenetv2_small", "resnet20", "generated50")
VARIANTS = 100


def generated(convolutions: int = 50) -> onnx.ModelProto:
    """A chain of 3x3, depthwise and 1x1 convolutions on a 56 x 56 image, no two of the same shape."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    name, channels, size = "x", 16, 56
    for i in range(convolutions):
        kind = ("plain", "depthwise", "pointwise")[i % 3]
        stride = 2 if i in (12, 24, 36) else 1
        made = channels if kind == "depthwise" else 16 + 4 * i
        kernel = 1 if kind == "pointwise" else 3
        group = channels if kind == "depthwise" else 1
        values = rng.normal(0, 0.1, (made, channels // group, kernel, kernel)).astype(np.float32)
        weights += [
            numpy_helper.from_array(values, f"w{i}"),
            numpy_helper.from_array(np.zeros(made, np.float32), f"b{i}"),
        ]
        out = f"t{i}" if i + 1 < convolutions else "y"
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", [name, f"w{i}", f"b{i}"], [f"c{i}"], group=group, strides=[stride] * 2, pads=pads)
        )
        nodes.append(helper.make_node("Relu", [f"c{i}"], [out]))
        name, channels, size = out, made, -(-size // stride)
    ends = [
        [helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, width, rows, rows])]
        for end, width, rows in (("x", 16, 56), ("y", channels, size))
    ]
    graph = helper.make_graph(nodes, "generated", ends[0], ends[1], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def random_variants(graph: LayerGraph, count: int) -> list[LayerGraph]:
    """The graph under random widths and weight densities."""
    rng = np.random.default_rng(1)
    keys = [layer.key for layer in graph.layers]
    made = []
    for _ in range(count):
        activations = int(rng.integers(2, 9))
        layers = {
            key: LayerConfig(weight_bits=int(rng.integers(2, 9)), activation_bits=activations, algorithm="magnitude")
            for key in keys
        }
        achieved = {key: Achieved(weight_density=float(rng.uniform(0.1, 1.0))) for key in keys}
        made.append(with_plan(graph, CompressionPlan(layers=layers, achieved=achieved)))
    return made


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def inference(proto: onnx.ModelProto, repeats: int) -> float:
    """Median time of one float inference of one sample on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {
        entry.name: np.zeros([n if isinstance(n, int) else 1 for n in entry.shape], np.float32)
        for entry in session.get_inputs()
    }
    session.run(None, feeds)
    return statistics.median(seconds(lambda: session.run(None, feeds)) for _ in range(20 * repeats))


def measure(name: str, accelerator: str, repeats: int) -> str:
    """One line of the table."""
    source = generated() if name == "generated50" else onnx.load(SAMPLES / f"{name}.onnx")
    profile = load_profile(accelerator)
    graph = open_model(source, None).graph
    cold, whole = [], []
    for _ in range(repeats):
        rows_moved.cache_clear()
        cold.append(seconds(lambda: CostModel(profile).baseline(graph)))
        rows_moved.cache_clear()
        whole.append(seconds(lambda: _profile(source, accelerator)))
    model = CostModel(profile)
    model.baseline(graph)
    variants = random_variants(graph, VARIANTS)
    new = statistics.median(seconds(lambda g=variant: model.cost_total(g)) for variant in variants)
    known = statistics.median(seconds(lambda g=variant: model.cost_total(g)) for variant in variants)
    once = inference(source, repeats)
    shapes = len({layer.loop_dims for layer in graph.layers})
    cold_s, whole_s = statistics.median(cold), statistics.median(whole)
    return (
        f"{name:18} {len(graph.layers):6} {shapes:6} {cold_s:8.3f} {whole_s:9.3f} {new * 1e3:8.2f} {known * 1e3:9.2f}"
        f" {once * 1e3:10.2f} {cold_s / once:10.1f} {new / once:10.2f}"
    )


def _profile(source: onnx.ModelProto, accelerator: str) -> None:
    graph = open_model(source, None).graph
    model = CostModel(load_profile(accelerator))
    model.baseline(graph)
    model.float_cost(graph)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Time the energy model.")
    parser.add_argument("--accelerator", default="edge-flex", choices=[*list_profiles(), "all"])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    for accelerator in list_profiles() if args.accelerator == "all" else [args.accelerator]:
        print(f"{accelerator}, medians of {args.repeats} (warm: of {VARIANTS} variants)")
        print(
            f"{'network':18} {'layers':>6} {'shapes':>6} {'cold s':>8} {'profile s':>9} {'new ms':>8} {'known ms':>9}"
            f" {'infer. ms':>10} {'cold/inf.':>10} {'new/inf.':>10}"
        )
        for name in NETWORKS:
            print(measure(name, accelerator, args.repeats), flush=True)


if __name__ == "__main__":
    main()
