"""Asking less of the hardware never costs more: fewer bits, more zeros, fewer channels, and only where it helps."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import Achieved, CompressionPlan, LayerConfig, with_plan
from tests import tiny_models
from tests.cost.tiny_accelerator import tiny

PROFILES = {name: load_profile(name) for name in list_profiles()}
ENERGIES = {name: StepEnergies(profile, None) for name, profile in PROFILES.items()}
PLACES = [Place(), Place(True, False, True), Place(True, False, True, 4)]


def conv(channels, inputs=16, size=14, groups=1):
    return LoopDims(
        G=groups, K=channels, C=inputs, OY=size, OX=size, FY=3, FX=3, pads=(1, 1, 1, 1), input_size=(size, size)
    )


LAYERS = {
    "convolution": conv,
    "depthwise": lambda channels: conv(1, 1, groups=channels),
    "pointwise": lambda channels: LoopDims(K=channels, C=24, OY=7, OX=7, input_size=(7, 7)),
    "inputs": lambda channels: LoopDims(K=24, C=channels, OY=7, OX=7, input_size=(7, 7)),
    "product": lambda channels: LoopDims(K=channels, C=64),
}


def energy(accelerator, dims, bits=(8, 8), densities=(1.0, 1.0), place=PLACES[0]):
    one = LayerSetting(dims, True, *bits, *densities, None, Nest(dims).words("O"), 8, 1.0, dims.K * dims.G)
    return ENERGIES[accelerator].best(one, place).energy


def rises(values):
    """Whether a sequence that should fall or stay rises somewhere."""
    return any(after > before * (1 + 1e-9) for before, after in itertools.pairwise(values))


@pytest.mark.parametrize("accelerator", PROFILES)
@pytest.mark.parametrize("layer", LAYERS)
def test_fewer_bits_of_either_operand_never_cost_more(layer, accelerator):
    dims, widths = LAYERS[layer](20), (16, 8, 7, 6, 5, 4, 3, 2)
    for place, fixed in itertools.product(PLACES, (2, 8, 16)):
        assert not rises([energy(accelerator, dims, (bits, fixed), place=place) for bits in widths])
        assert not rises([energy(accelerator, dims, (fixed, bits), place=place) for bits in widths])


@pytest.mark.parametrize("accelerator", PROFILES)
@pytest.mark.parametrize("layer", LAYERS)
def test_more_zeros_of_either_operand_never_cost_more(layer, accelerator):
    dims = LAYERS[layer](20)
    for place, bits in itertools.product(PLACES[:2], ((8, 8), (2, 4))):
        densities = [d / 10 for d in range(10, -1, -1)]
        assert not rises([energy(accelerator, dims, bits, (d, 0.7), place) for d in densities])
        assert not rises([energy(accelerator, dims, bits, (0.7, d), place) for d in densities])


@pytest.mark.parametrize("accelerator", PROFILES)
@pytest.mark.parametrize("layer", LAYERS)
def test_fewer_channels_never_cost_more(layer, accelerator):
    counts = (40, 33, 32, 31, 24, 17, 16, 15, 9, 8, 7, 3, 2, 1)
    assert not rises([energy(accelerator, LAYERS[layer](n), place=PLACES[1]) for n in counts])


@st.composite
def shrinking(draw):
    """A layer, and the same layer at as many or fewer channels, bits, or elements that are not zero."""
    one_of = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    size, kernel, stride = one_of(1, 7, 14, 28), one_of(1, 1, 3, 5), one_of(1, 1, 2)
    kernel = 1 if size == 1 else kernel
    counts = [draw(st.integers(1, 70)), draw(st.integers(1, 70))]
    grouped = draw(st.booleans())

    def layer(channels, inputs):
        shape = {"G": channels} if grouped else {"K": channels, "C": inputs}
        pad = kernel // 2
        return LoopDims(
            **shape, OY=size, OX=size, FY=kernel, FX=kernel, stride=(stride, stride), pads=(pad,) * 4,
            input_size=(size * stride, size * stride),
        )  # fmt: skip

    bits = [one_of(2, 3, 4, 6, 8), one_of(2, 3, 4, 6, 8)]
    densities = [draw(st.floats(0.05, 1.0)), draw(st.floats(0.05, 1.0))]
    before = (layer(*counts), tuple(bits), tuple(densities))
    changed, which = one_of("channels", "bits", "density"), one_of(0, 1)
    if changed == "channels":
        counts[which] = draw(st.integers(1, counts[which]))
    elif changed == "bits":
        bits[which] = draw(st.integers(2, bits[which]))
    else:
        densities[which] *= draw(st.floats(0.0, 1.0))
    return before, (layer(*counts), tuple(bits), tuple(densities))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(PROFILES)), shrinking(), st.sampled_from(PLACES[:2]))
def test_any_layer_asked_for_less_never_costs_more(accelerator, layers, place):
    before, after = layers
    assert energy(accelerator, *after, place) <= energy(accelerator, *before, place) * (1 + 1e-9)


def test_unit_whose_split_costs_more_than_it_saves_is_noticed():
    """The broken twin: split in two at 2.5 times the energy, a MAC of 4 bits is dearer than one of 8."""
    wasteful = {"mac.law": "subword", "mac.min_bits": 2, "mac.overhead": 1.5}
    found = {}
    for name, changes in (("wasteful", wasteful), ("usual", {**wasteful, "mac.overhead": 0.1})):
        energies = StepEnergies(tiny(changes), None)
        dims = LAYERS["product"](16)
        ones = [LayerSetting(dims, True, b, b, 1.0, 1.0, None, 16, 8, 1.0, 16) for b in (8, 7, 6, 5, 4, 3, 2)]
        found[name] = [energies.query.fixed(one).parts["mac"] for one in ones]
    assert rises(found["wasteful"])
    assert not rises(found["usual"])


def test_hardware_without_a_use_for_bits_or_zeros_charges_them_in_full():
    """The plain INT8 array: 5 bits cost what 8 do, and no zero is worth anything."""
    dims = LAYERS["convolution"](20)
    assert energy("edge-tpu-64x64", dims, (5, 5)) == energy("edge-tpu-64x64", dims, (8, 8))
    assert energy("edge-tpu-64x64", dims, densities=(0.1, 0.1)) == energy("edge-tpu-64x64", dims)
    assert energy("edge-flex", dims, (4, 4)) < energy("edge-flex", dims, (8, 8))
    assert energy("edge-flex", dims, densities=(0.1, 0.1)) < energy("edge-flex", dims)


def test_format_that_must_be_used_does_cost_more_for_dense_tensors():
    """The broken twin of the formats: without the choice to leave a tensor uncompressed, compression adds bits."""
    dims, found = LAYERS["product"](16), []
    for formats in ({}, {"W": {"kind": "bitmask"}}, {"W": {"kind": "bitmask", "selectable": False}}):
        energies = StepEnergies(tiny({"memories.dram.formats": formats}), None)
        one = LayerSetting(dims, True, 8, 8, 1.0, 1.0, None, 16, 8, 1.0, 16)
        found.append(energies.best(one, Place()).energy)
    assert found[0] == pytest.approx(found[1])
    assert found[2] > found[1]


GRAPHS = {name: parse(normalize(tiny_models.ALL[name]())) for name in ("residual", "depthwise", "concat", "attention")}
COSTS = {
    size: CostModel(
        PROFILES["edge-flex"].model_copy(
            update={
                "memories": tuple(
                    m.model_copy(update={"bytes": size}) if m.home else m for m in PROFILES["edge-flex"].memories
                )
            }
        )
    )
    for size in (700, 2500, 196_608)
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(GRAPHS)), st.sampled_from(sorted(COSTS)), st.integers(0, 10_000))
def test_graph_with_one_tensor_or_weight_narrowed_or_thinned_never_costs_more(name, size, seed):
    rng = np.random.default_rng(seed)
    graph, model = GRAPHS[name], COSTS[size]
    keys = [layer.key for layer in graph.layers]
    graph = with_plan(graph, CompressionPlan.uniform(keys, LayerConfig()))
    for _ in range(3):
        before = model.cost_total(graph)
        change = {"bits": int(rng.integers(2, 8))} if rng.random() < 0.5 else {"density": float(rng.uniform(0.1, 0.9))}
        if rng.random() < 0.5:
            chosen = graph.layers[rng.integers(len(keys))]
            fields = {f"weight_{field}": value for field, value in change.items()}
            if any(getattr(chosen, field) < value for field, value in fields.items()):
                continue
            layers = tuple(replace(layer, **fields) if layer is chosen else layer for layer in graph.layers)
            graph = replace(graph, layers=layers)
        else:
            stored = [t for t in graph.tensors.values() if t.kind == "activation"]
            tensor = stored[rng.integers(len(stored))]
            if any(getattr(tensor, field) < value for field, value in change.items()):
                continue
            graph = replace(graph, tensors={**graph.tensors, tensor.name: replace(tensor, **change)})
        assert model.cost_total(graph) <= before * (1 + 1e-9)


@pytest.mark.parametrize("accelerator", PROFILES)
@pytest.mark.parametrize("name", ["residual", "depthwise", "concat"])
def test_graph_that_loses_channels_never_costs_more(name, accelerator):
    graph, model = GRAPHS[name], CostModel(PROFILES[accelerator])
    int8 = LayerConfig()
    before = model.cost_total(with_plan(graph, CompressionPlan.uniform([layer.key for layer in graph.layers], int8)))
    for group in graph.channel_groups:
        if group.locked_because is not None:
            continue
        for kept in (group.channels - 1, group.channels // 2, 1):
            lost = LayerConfig(algorithm="l1", ratio=min(0.95, 1 - kept / group.channels))
            layers = {layer.key: lost if layer.key in group.producers else int8 for layer in graph.layers}
            achieved = {key: Achieved(kept_channels=kept) for key in group.producers}
            smaller = with_plan(graph, CompressionPlan(layers=layers, achieved=achieved))
            assert model.cost_total(smaller) < before
