"""How long the energy model takes: cold searches, warm queries, and a whole network cold and warm."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from energy_pairs import profile_of
from networks import resnet50

from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.batch import Densities, energies
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.cost.search import search
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.cost.window import rows_moved
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.workspace import open_model

SETTINGS = 2000
REPETITIONS = 9


def timing_lines() -> Iterator[str]:
    """All figures: CPU time of one core, each the median of several, and wall time of whole networks."""
    from architectures import ARCHITECTURES

    graph = open_model(resnet50(), None).graph
    shapes = list(dict.fromkeys(layer.loop_dims for layer in graph.layers))
    yield f"cold search of one layer, {len(shapes)} shapes of ResNet-50, CPU ms: median (largest)"
    profiles = [profile_of(a) for a in ARCHITECTURES.values()]
    for profile in [*profiles, *(load_profile(n) for n in ("eyeriss-v1", "edge-tpu-64x64", "edge-flex"))]:
        taken = []
        for dims in shapes:
            taken.append(statistics.median(_cold(dims, profile) for _ in range(3)))
        yield f"  {profile.name:20} {statistics.median(taken):7.1f} ({max(taken):.1f})"
    yield "warm query, CPU us for a layer at a setting not asked for before: one at a time; many at once (millions a second)"
    for name in ("edge-flex", "eyeriss-v1", "edge-tpu-64x64"):
        one, many = _queries(name, graph)
        yield f"  {name:20} {one:7.1f}; {many:.3f} ({1 / many:.1f})"
    yield "ResNet-50, every node at INT8 and float, from an opened model, wall s: cold; from the cache on disk; asked again"
    for name in ("edge-flex", "eyeriss-v1", "edge-tpu-64x64"):
        yield f"  {name:20} " + "; ".join(f"{seconds:.2f}" for seconds in _network(name, graph))


def _cold(dims: LoopDims, profile: AcceleratorProfile) -> float:
    """Milliseconds of one search with nothing remembered."""
    rows_moved.cache_clear()
    started = time.process_time()
    search(Nest(dims), Hierarchy(profile))
    return 1e3 * (time.process_time() - started)


def _queries(name: str, graph: LayerGraph) -> tuple[float, float]:
    """Median microseconds of a new setting, alone and among many."""
    steps, rng = StepEnergies(load_profile(name), None), np.random.default_rng(0)
    layers = [layer for layer in graph.layers if layer.loop_dims.OY > 1][:6]
    alone, together = [], []
    for layer in layers:
        dims, place = layer.loop_dims, Place(True, False, True)
        words = Nest(dims).words("O")
        base = LayerSetting(dims, True, 8, 8, 1.0, 1.0, None, words, 8, 1.0, dims.K)
        steps.best(base, place)
        for _ in range(SETTINGS // len(layers)):
            a, w = (int(n) for n in rng.integers(2, 9, 2))
            d = rng.uniform(0.1, 1.0, 3)
            one = base._replace(activation_bits=a, weight_bits=w, activation_density=d[0], weight_density=d[1], out_density=d[2])
            started = time.process_time()
            steps.best(one, place)
            alone.append(1e6 * (time.process_time() - started))
        many = Densities(*(rng.uniform(0.1, 1.0, SETTINGS) for _ in range(3)))
        energies(steps.query, steps.tables.table(dims), base, place, many)
        for _ in range(REPETITIONS):
            started = time.process_time()
            energies(steps.query, steps.tables.table(dims), base, place, many)
            together.append(1e6 * (time.process_time() - started) / SETTINGS)
    return statistics.median(alone), statistics.median(together)


def _network(name: str, graph: LayerGraph) -> list[float]:
    """Seconds of a first call, of one in a new process with the cache on disk, and of one more: medians of three rounds."""
    profile, rounds = load_profile(name), []
    for _ in range(3):
        taken = []
        with tempfile.TemporaryDirectory() as folder:
            model = CostModel(profile, folder)
            for again in (model, CostModel(profile, folder), None):
                rows_moved.cache_clear()
                model = again or model
                started = time.perf_counter()
                model.baseline(graph)
                model.float_cost(graph)
                taken.append(time.perf_counter() - started)
        rounds.append(taken)
    return [statistics.median(seconds) for seconds in zip(*rounds, strict=True)]
