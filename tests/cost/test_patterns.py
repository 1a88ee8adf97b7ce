"""Zeros in patterns: what a file of a whole run costs, what the plan foretold, and the bounds that a search is warned with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import hwc_onnx
from hwc_onnx.cost.accelerator import Format
from hwc_onnx.cost.formats import element_bits
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.graph.parse import parse
from hwc_onnx.graph.zero_pattern import Blocks, filled_share, follows_pattern, share_of
from hwc_onnx.job.rewards import rewards
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.options import Options
from hwc_onnx.plan import with_plan
from tests.cost.tiny_accelerator import tiny
from tests.tiny_models import Builder

SKIPS = tiny({
    "sparsity": {"patterns": ["2:4", "1x4"], "decode_pj": 0.01},
    "memories.dram.formats": {"W": {"kind": "nm"}},
})  # fmt: skip


def network() -> onnx.ModelProto:
    """Three channels in, a depthwise layer, one of two groups of six, and a transposed one of two groups of five."""
    b = Builder(["n", 3, 6, 6])
    t = b.node("Relu", b.conv("x", 3, 12, (3, 3)))
    t = b.node("Relu", b.conv(t, 12, 12, (3, 3), group=12))
    t = b.node("Relu", b.conv(t, 12, 10, (3, 3), group=2))
    t = b.node("Relu", b.node("ConvTranspose", t, b.weight(10, 4, 2, 2), b.vector(8), strides=[2, 2], group=2))
    return b.finish(b.conv(t, 8, 5, (1, 1)))


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=(256, 3, 6, 6)).astype(np.float32)}


@pytest.mark.parametrize("setting", ["nm24", "nm48", "block4:0.6"])
@pytest.mark.parametrize("bits", [2, 8])
def test_energy_of_the_written_file_is_what_the_plan_says(
    setting: str, bits: int, data: dict[str, np.ndarray], tmp_path: Path
) -> None:
    plan = hwc_onnx.uniform_plan(network(), f"w{bits}a8,fine={setting}")
    applied = hwc_onnx.apply_plan(network(), plan=plan, data=data, metric="cosine")
    graph, found = parse(normalize(network())), parse(onnx.load(applied.save(tmp_path / "m.onnx").path))
    model = CostModel(SKIPS)
    foretold = model.cost(with_plan(graph, applied.plan))
    assert model.cost(found).total == pytest.approx(foretold.total, rel=1e-12)
    patterns = {layer.key: layer.nm_pattern for layer in found.layers}
    assert all(pattern is not None for pattern in patterns.values())
    # broken twin: every layer charged for N of M, whatever its runs
    depthwise = next(layer for layer in graph.layers if layer.loop_dims.G == 12)
    if setting == "nm24":
        assert share_of((2, 4), depthwise.loop_dims.C) == 1.0 != share_of((2, 4))


def test_a_layer_of_few_channels_stays_dense_under_n_of_m() -> None:
    assert [share_of((2, 4), channels) for channels in (1, 2, 3, 4, 5, 6, 7, 8)] == pytest.approx(
        [1, 1, 2 / 3, 1 / 2, 3 / 5, 4 / 6, 4 / 7, 1 / 2]
    )
    assert share_of(Blocks(0.3, 4), 3) == 0.3


def test_runs_of_a_transposed_convolution_end_with_its_groups() -> None:
    layer = next(layer for layer in parse(normalize(network())).layers if layer.op_type == "ConvTranspose")
    weight = np.zeros((10, 4, 2, 2), np.float32)
    for group in (0, 5):  # the last channel of each group of five, and the first two
        weight[[group, group + 1, group + 4]] = 1.0
    assert follows_pattern(weight, layer, 2, 4)
    assert filled_share(weight, layer, 4) == 1.0
    weight[[4, 9]] = 0.0
    assert filled_share(weight, layer, 4) == 0.8
    weight[2] = 1.0
    assert not follows_pattern(weight, layer, 2, 4)


def test_blocks_are_charged_for_the_weights_and_indices_that_they_hold() -> None:
    """A last block that is shorter counts as long as it is, and has an index of its own."""
    layer = parse(network()).layers[0]  # three input channels, so that each block holds three
    conv = next(one for one in parse(normalize(network())).layers if one.loop_dims.G == 2 and one.op_type == "Conv")
    assert layer.loop_dims.C == 3 and conv.loop_dims.C == 6
    weight = np.ones(conv.weight_shape, np.float32)
    weight[:, 4:] = 0.0
    assert filled_share(weight, conv, 4) == pytest.approx(4 / 6)
    stored = element_bits(8, 0.5, Format(kind="blocks"), Blocks(4 / 6, 4), conv.loop_dims.C)
    assert stored == pytest.approx((4 * 8 + 2) / 6)
    # broken twin: as if blocks were whole
    assert stored != pytest.approx(0.5 * 8 + 1 / 4)
    assert element_bits(8, 0.5, Format(kind="blocks"), Blocks(0.5, 4), 1) == 0.5 * 8 + 1


@pytest.mark.parametrize("names", [("nm24",), ("block4",), ("obs", "block4", "l1")])
def test_bounds_hold_where_patterns_are_skipped(names: tuple[str, ...]) -> None:
    """No plan of these algorithms saves more than is said, and what patterns save is in it."""
    graph = parse(normalize(network()))
    options = Options(algorithms=names, weight_bits=(8, 8), activation_bits=(8, 8))
    model = CostModel(SKIPS)
    said = rewards(graph, options, model)
    base = model.cost_total(with_plan(graph, hwc_onnx.uniform_plan(network(), "w8a8")))
    for spec in ("w8a8,fine=nm24", "w8a8,fine=block4:0.9"):
        if spec.split("=")[1].split(":")[0] in names:
            saved = 1 - model.cost_total(with_plan(graph, hwc_onnx.uniform_plan(network(), spec))) / base
            assert 0.01 < saved <= said.single["zeros"] + 1e-9 and saved <= said.together + 1e-9
    plain = rewards(graph, options, CostModel(load_profile("edge-flex")))
    assert plain.single.keys() == said.single.keys()
