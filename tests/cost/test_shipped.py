"""The shipped accelerators against the figures that their sources state, and what each of them rewards."""

from functools import cache

import pytest

from hwc_onnx.cost.levels import instances, levels
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.cost.tiny_accelerator import tiny

ALEXNET_CONV3 = LoopDims(K=384, C=256, OY=13, OX=13, FY=3, FX=3, pads=(1, 1, 1, 1), input_size=(13, 13))

REWARDS = {
    # weights of 4 bits, inputs of 4 bits, half of the weights zero, half of the inputs zero
    "bitfusion-32x16": (True, True, False, False),
    "edge-flex": (True, True, True, True),
    "edge-flex-fixed8": (True, True, True, True),
    "edge-tpu-64x64": (True, True, False, False),
    "ethos-u55-256": (False, False, True, False),
    "eyeriss-v1": (False, False, False, True),
    "eyeriss-v2-sparse": (False, False, True, True),
    "interstellar-16x16": (True, True, False, False),
    "nvdla-large": (False, False, True, True),
    "simba-chiplet": (False, False, False, False),
    "unpu-bitserial": (True, False, False, False),
}


@cache
def energies(name):
    return StepEnergies(load_profile(name), None)


def parts(name, dims, bits=(8, 8), densities=(1.0, 1.0)):
    """Energy of a layer by component, all of its tensors in DRAM."""
    made = energies(name)
    one = LayerSetting(dims, True, *bits, *densities, None, Nest(dims).words("O"), 8, 1.0, dims.K * dims.G)
    best = made.best(one, Place())
    return made.query.parts(made.tables.table(dims), one, Place(), best.row)


@pytest.mark.parametrize("name", list_profiles())
@pytest.mark.parametrize("model", ["residual", "depthwise", "attention"])
def test_every_layer_has_a_mapping_at_8_and_at_16_bits(name, model):
    graph, costs = parse(normalize(tiny_models.ALL[model]())), CostModel(load_profile(name))
    assert 0 < costs.baseline(graph).total <= costs.float_cost(graph).total


def test_what_an_accelerator_rewards_is_stated_for_each():
    assert sorted(REWARDS) == list_profiles()


@pytest.mark.parametrize("name", REWARDS)
def test_accelerator_rewards_what_its_design_can_use_and_nothing_else(name):
    dims = LoopDims(K=32, C=16, OY=14, OX=14, FY=3, FX=3, pads=(1, 1, 1, 1), input_size=(14, 14))
    dense = sum(parts(name, dims).values())
    changes = [{"bits": (8, 4)}, {"bits": (4, 8)}, {"densities": (1.0, 0.5)}, {"densities": (0.5, 1.0)}]
    saved = tuple(sum(parts(name, dims, **change).values()) < dense * (1 - 1e-9) for change in changes)
    assert saved == REWARDS[name]


def level(name, memory):
    return next(found for found in levels(load_profile(name)) if found.memory == memory)


def test_eyeriss_costs_what_the_normalised_table_says():
    """ISCA 2016, a 16-bit word: scratchpad 1, between PEs 2, buffer 6, DRAM 200, where a MAC is 1."""
    profile = load_profile("eyeriss-v1")
    assert profile.mac.energy_pj == 1.0
    assert {level("eyeriss-v1", f"{name}_spad").total for name in ("input", "weight")} == {1.0}
    assert level("eyeriss-v1", "psum_spad").psum == 2.0, "read and written"
    assert level("eyeriss-v1", "global_buffer").read_i == 6.0
    assert level("eyeriss-v1", "dram").read_w == 200.0
    assert 16 * profile.array.hop_pj_per_bit == 2.0


def test_eyeriss_saves_with_zero_inputs_what_the_chip_did():
    """JSSC 2017, AlexNet CONV2..5 (recalled): energy per MAC on chip falls by 0.61 of the share of zero inputs.

    The chip has a clock, which the model has not, and a fixed mapping, where the model takes the cheapest: it saves a
    little more.
    """
    found = {density: parts("eyeriss-v1", ALEXNET_CONV3, densities=(density, 1.0)) for density in (1.0, 0.275)}
    on_chip = {density: sum(found[density].values()) - found[density]["dram"] for density in found}
    slope = (1 - on_chip[0.275] / on_chip[1.0]) / (1 - 0.275)
    assert slope == pytest.approx(0.61, abs=0.12)
    for broken in (0.0, 1.0):
        assert broken != pytest.approx(0.61, abs=0.12), "a zero input that spares nothing, or everything"


def test_interstellar_costs_what_its_file_says_and_no_arithmetic():
    """3_level_mem_baseline_asic.json, a 16-bit access: 0.96, 20, 200, and 0.035 a hop."""
    profile = load_profile("interstellar-16x16")
    cost = {memory.name: 16 * memory.read_pj_per_bit for memory in profile.memories}
    assert cost == pytest.approx({"register_file": 0.96, "buffer": 20.0, "dram": 200.0})
    assert [memory.bytes for memory in profile.memories] == [512, 131072, None]
    assert 16 * profile.array.hop_pj_per_bit == pytest.approx(0.035)
    found = parts("interstellar-16x16", ALEXNET_CONV3, (16, 16))
    assert found["mac"] == 0.0 < found["register"]


def test_simba_has_the_buffers_of_timeloops_file():
    """simba-chip.cfg: 1024 registers, 128 accumulation and weight buffers, 16 input buffers, one global buffer."""
    profile = load_profile("simba-chiplet")
    found = {memory.name: instances(profile, memory) for memory in profile.memories}
    assert found == {
        "weight_registers": 1024, "accumulation_buffer": 128, "weight_buffer": 128, "input_buffer": 16,
        "global_buffer": 1, "dram": 1,
    }  # fmt: skip


def test_level_of_a_memory_is_its_words_times_their_width():
    """By hand on the tiny accelerator: 8-bit words, sums of 24 bits; the buffer packs at 2, 4, 8 and 24."""
    found = {entry.memory: entry for entry in levels(tiny())}
    assert (found["i_reg"].read_i, found["i_reg"].read_w, found["i_reg"].psum) == (pytest.approx(8 * 0.011), None, None)
    assert found["w_reg"].read_w == pytest.approx(8 * 0.017)
    assert found["o_reg"].psum == pytest.approx(24 * (0.023 + 0.029))
    assert found["buffer"].total == pytest.approx(8 * 0.31 + 24 * (0.31 + 0.37))
    assert found["dram"].total == pytest.approx(2 * 8 * 5.0 + 24 * 12.0)
    narrow = {entry.memory: entry for entry in levels(tiny({"memories.dram.pack_weights": [16]}))}
    assert narrow["dram"].read_w == pytest.approx(16 * 5.0)
    assert narrow["dram"].read_i == found["dram"].read_i


def test_weights_packed_apart_change_the_traffic_of_weights_alone():
    dims = LoopDims(K=16, C=16, OY=4, OX=4, input_size=(4, 4))
    traffic = {}
    for pack in (None, [16]):
        made = StepEnergies(tiny({"memories.dram.pack_weights": pack}), None)
        one = LayerSetting(dims, True, 8, 8, 1.0, 1.0, None, 256, 8, 1.0, 0)
        traffic[pack is None] = made.query.parts(made.tables.table(dims), one, Place(), made.best(one, Place()).row)
    assert traffic[False]["dram"] - traffic[True]["dram"] >= 8 * 5.0 * dims.K * dims.C * (1 - 1e-9)
    assert traffic[False]["mac"] == traffic[True]["mac"]
