"""The mapping search against trying all mappings, and each found mapping against walking its loops."""

import math

import pytest

from hwc_onnx.cost import LayerMapping, evaluate_mapping, map_layer
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.operands import DIMS, Nest
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.cost.query import LayerQuery
from hwc_onnx.cost.search import Effort, search
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.graph.loop_dims import LoopDims
from tests.cost.exhaustive import Traffic, best_energy, energy, started
from tests.cost.loop_walk import Mapping, walk
from tests.cost.tiny_accelerator import tiny

LAYERS = {
    "pointwise": LoopDims(K=4, C=4, OY=4, OX=3, input_size=(4, 3)),
    "convolution": LoopDims(K=4, C=2, OY=4, OX=2, FY=2, FX=2, input_size=(5, 3)),
    "padded": LoopDims(K=2, C=2, OY=3, OX=3, FY=3, FX=3, pads=(1, 1, 1, 1), input_size=(3, 3)),
    "strided": LoopDims(K=2, C=4, OY=3, OX=2, FY=3, stride=(2, 2), input_size=(7, 3)),
    "depthwise": LoopDims(G=2, OY=4, OX=4, FY=3, FX=3, pads=(1, 1, 1, 1), input_size=(4, 4)),
    "product": LoopDims(K=4, C=8, OY=4),
    "vector": LoopDims(K=16, C=16),
    "overlapping": LoopDims(K=2, C=4, OY=3, OX=2, FY=3, FX=1, transposed=True),
    "transposed": LoopDims(K=2, C=4, OY=3, OX=3, FY=2, FX=2, stride=(2, 2), input_size=(3, 3), transposed=True),
}
BITS = [(8, 8, 8), (4, 2, 4), (2, 8, 8), (8, 2, 4)]
NO_CHOICE = Effort(unrolls=1, sizes=1, survivors=1, passes=(1,), kept=1, rounds=0, free_steps=1)


def setting(dims, bits):
    return LayerSetting(dims, True, bits[0], bits[1], 1.0, 1.0, None, Nest(dims).words("O"), bits[2], 1.0, 0)


def found(dims, bits, effort=None):
    hierarchy = Hierarchy(tiny())
    best = LayerQuery(hierarchy).best(search(Nest(dims), hierarchy, effort), setting(dims, bits), Place())
    return math.inf if best is None else best.energy


@pytest.mark.parametrize("name", LAYERS)
def test_search_is_within_two_percent_of_trying_every_mapping(name):
    for bits in (BITS[0], BITS[3]):
        least = best_energy(LAYERS[name], bits)
        assert found(LAYERS[name], bits) <= least * 1.02


def test_search_without_choices_is_noticed():
    """The broken twin: one unroll and one tile size; some layers cost visibly more."""
    worse = [found(dims, BITS[0], NO_CHOICE) > 1.02 * best_energy(dims, BITS[0]) for dims in LAYERS.values()]
    assert sum(worse) >= 2


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", ["pointwise", "convolution", "strided", "product", "transposed", "overlapping"])
def test_energy_of_a_found_mapping_equals_walking_its_loops(name, bits):
    dims, hierarchy = LAYERS[name], Hierarchy(tiny())
    table = search(Nest(dims), hierarchy)
    query, one = LayerQuery(hierarchy), setting(LAYERS[name], bits)
    best = query.best(table, one, Place())
    assert best is not None
    assert best.energy == pytest.approx(float(energy(dims, walked(table, best.row, dims, hierarchy), bits)), rel=1e-12)
    assert best.energy == pytest.approx(sum(query.parts(table, one, Place(), best.row).values()), rel=1e-12)


def test_energy_with_one_word_forgotten_differs_from_walking_the_loops():
    """The broken twin of the test above: a single word not fetched is seen."""
    dims, hierarchy = LAYERS["pointwise"], Hierarchy(tiny())
    table = search(Nest(dims), hierarchy)
    best = LayerQuery(hierarchy).best(table, setting(dims, BITS[0]), Place())
    traffic = walked(table, best.row, dims, hierarchy)
    fewer = Traffic(traffic.registers, traffic.asked, {**traffic.buffers, "I": traffic.buffers["I"] - 1}, traffic.started)
    assert best.energy != pytest.approx(float(energy(dims, fewer, BITS[0])), rel=1e-12)


def walked(table, row, dims, hierarchy):
    """Words moved by a row of the table, counted by walking the loops."""
    loops = tuple((DIMS[d], int(n)) for d, n in zip(table.loop_dims[row], table.loop_sizes[row], strict=True) if n > 1)
    spread = {d: int(table.unroll[row, :, i].prod()) for i, d in enumerate(DIMS)}
    alone = dict.fromkeys(DIMS, 1)
    held = {
        (hierarchy.profile.memories[memory].name, operand): int((table.loop_sizes[row, : table.inside[row, i]] > 1).sum())
        for i, (memory, operand) in enumerate(hierarchy.held)
    }
    registers, asked, buffers = {}, {}, {}
    for operand, register, buffer in (("I", "i_reg", "buffer"), ("W", "w_reg", "w_buffer"), ("O", "o_reg", "buffer")):
        registers[operand], asked[operand], _ = walk(
            operand, dims, Mapping(loops, alone, spread), held[register, operand]
        )
        buffers[operand] = walk(operand, dims, Mapping(loops, spread, alone), held[buffer, operand])[0]
    return Traffic(registers, asked, buffers, started(dims, spread))


@pytest.mark.parametrize("accelerator", list_profiles())
def test_search_twice_gives_the_same_table(accelerator):
    dims = LoopDims(K=24, C=12, OY=7, OX=7, FY=3, FX=3, pads=(1, 1, 1, 1), input_size=(7, 7))
    tables = [search(Nest(dims), Hierarchy(load_profile(accelerator))) for _ in range(2)]
    for one, other in zip(tables[0].arrays().values(), tables[1].arrays().values(), strict=True):
        assert (one == other).all()


UPSAMPLING = {"K": 16, "OY": 28, "OX": 28, "FY": 4, "FX": 4, "stride": (2, 2), "pads": (1, 1, 1, 1), "transposed": True}

SQUARE = (("OY", 4), ("OX", 4), ("FY", 4), ("FX", 4), ("OY", 7), ("OX", 7))


@pytest.mark.parametrize(
    ("accelerator", "axes", "channels", "tiles"),
    [
        ("nvdla-large", ("channels", "kernels"), 24, (("OY", 28), ("OX", 4), ("FY", 4), ("FX", 4), ("OX", 7))),
        *(("bitfusion-32x16", ("rows", "columns"), c, SQUARE) for c in (16, 12, 8)),
    ],
)
def test_search_of_a_transposed_layer_is_as_good_as_tiles_that_keep_its_sums(accelerator, axes, channels, tiles):
    """Overlapping sums go out and come back, so tiles that keep them are what a search has to find."""
    dims = LoopDims(C=channels, **UPSAMPLING)
    spatial = {axes[0]: {"C": channels}, axes[1]: {"K": 16}}
    rows = (("FY", 4), ("FX", 4), ("OY", 28), ("OX", 28))
    stated, worse = (evaluate_mapping(dims, LayerMapping(spatial, t), accelerator).total for t in (tiles, rows))
    assert map_layer(dims, accelerator).total <= stated < worse


@pytest.mark.parametrize("accelerator", ["nvdla-large", "bitfusion-32x16", "edge-flex"])
def test_a_transposed_layer_of_fewer_channels_costs_less(accelerator):
    energies = [map_layer(LoopDims(C=channels, **UPSAMPLING), accelerator).total for channels in (24, 20, 16, 12, 8)]
    assert energies == sorted(energies, reverse=True)


def test_images_of_a_batch_share_weights_in_a_small_array():
    """Weights that do not fit are read once for the batch, not once for each image."""
    dims = LoopDims(B=3, K=8, C=8, FY=3, FX=3, pads=(1, 1, 1, 1), input_size=(1, 1))
    found = map_layer(dims, tiny())
    assert found.accesses["dram"]["W"]["read"] == 8 * 8 * 9
