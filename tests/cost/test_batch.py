"""Many settings at once cost what each costs alone; the table of options costs what the network's layers cost."""

import itertools

import numpy as np
import pytest

from hwc_onnx.cost import TableOption, energy_table
from hwc_onnx.cost.batch import Densities, energies
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.graph.parse import parse
from hwc_onnx.graph.zero_pattern import Blocks
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import CompressionPlan, LayerConfig, with_plan
from tests import tiny_models
from tests.cost.tiny_accelerator import tiny

LAYERS = {
    "convolution": LoopDims(K=24, C=16, OY=9, OX=9, FY=3, FX=3, pads=(1, 1, 1, 1)),
    "depthwise": LoopDims(G=24, OY=9, OX=9, FY=3, FX=3),
    "product": LoopDims(K=40, C=64),
}
EVERYTHING = tiny({
    "sparsity": {
        "gate": {"operands": ["I"], "saves": ["mac", "read_W", "psum"], "residual": 0.1, "flag_bits": 1},
        "skip": {"operands": ["W"], "imbalance": 1.3},
        "patterns": ["2:4", "1x4"],
        "decode_pj": 0.01,
    },
    "memories.dram.formats": {"W": {"kind": "rlc", "run_bits": 4}, "A": {"kind": "csc", "run_bits": 4, "selectable": False}},
    "memories.w_buffer.formats": {"W": {"kind": "nm"}},
    "memories.dram.bits_per_cycle": 16,
    "static": {"power_mw": 3.0},
})  # fmt: skip
BLOCKED = tiny({
    "sparsity": {"gate": {"operands": ["I", "W"], "saves": ["mac", "read_W"]}, "patterns": ["1x4"], "decode_pj": 0.01},
    "memories.dram.formats": {"W": {"kind": "blocks"}},
})  # fmt: skip
PROFILES = {name: load_profile(name) for name in list_profiles()} | {"everything": EVERYTHING, "blocked": BLOCKED}


@pytest.mark.parametrize("accelerator", PROFILES)
@pytest.mark.parametrize("name", LAYERS)
def test_batch_equals_one_setting_after_the_other(name, accelerator):
    step, dims, rng = StepEnergies(PROFILES[accelerator], None), LAYERS[name], np.random.default_rng(0)
    outputs = Nest(dims).words("O")
    for (a, w), nm, place in itertools.product(((8, 8), (3, 5), (16, 2)), (None, (2, 4), Blocks(0.4, 4)), (Place(), Place(True, False, True))):
        shares = Densities(*(np.concatenate([[0.0, 1.0], rng.uniform(0, 1, 6)]) for _ in range(3)))
        one = LayerSetting(dims, True, a, w, 1.0, 1.0, nm, outputs, a, 1.0, dims.K * dims.G)
        found = energies(step.query, step.tables.table(dims), one, place, shares)
        for i, (d_i, d_w, d_o) in enumerate(zip(*shares, strict=True)):
            alone = one._replace(activation_density=d_i, weight_density=d_w, out_density=d_o)
            assert found[i] == pytest.approx(step.query.best(step.tables.table(dims), alone, place).energy, rel=1e-12)


def test_batch_with_outputs_taken_as_dense_is_noticed():
    """The broken twin: where outputs are compressed, their zeros count."""
    step, dims = StepEnergies(PROFILES["edge-flex"], None), LAYERS["convolution"]
    one = LayerSetting(dims, True, 8, 8, 0.5, 0.5, None, Nest(dims).words("O"), 8, 0.2, dims.K)
    table, half = step.tables.table(dims), np.array([0.5])
    right = energies(step.query, table, one, Place(), Densities(half, half, np.array([0.2])))
    wrong = energies(step.query, table, one, Place(), Densities(half, half, np.array([1.0])))
    assert right[0] == pytest.approx(step.query.best(table, one, Place()).energy, rel=1e-12)
    assert wrong[0] > right[0] * 1.01


def test_table_column_of_the_int8_network_adds_up_to_its_layers():
    graph = parse(normalize(tiny_models.ALL["residual"]()))
    options = [TableOption(), TableOption(4, 4), TableOption(zeros=0.5), TableOption(removed=0.5), TableOption(2, 8, 0.5, 0.25)]
    table = energy_table(graph, "edge-flex", options)
    assert table.shape == (len(graph.layers), len(options))
    assert (table[:, 1:] < table[:, :1]).all()
    plan = CompressionPlan.uniform([layer.key for layer in graph.layers], LayerConfig())
    cost = CostModel(PROFILES["edge-flex"]).cost(with_plan(graph, plan))
    layers = [node for node in cost.nodes if node.method == "mapped"]
    for row, node in zip(table, layers, strict=True):
        # the node's own energy has the requantization of its results besides, and nothing else
        assert row[0] == pytest.approx(node.total - node.energy["vector"], rel=1e-9)
