import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwc_onnx.cost.access import Nests
from hwc_onnx.cost.exact import counted_twice, moved
from hwc_onnx.cost.operands import OPERANDS, Nest
from hwc_onnx.graph.loop_dims import LoopDims
from tests.cost.loop_walk import NAMES, Mapping, walk


@st.composite
def layers(draw):
    def small(top):
        return draw(st.integers(1, top))

    transposed = draw(st.booleans())
    oy, ox, fy, fx = small(4), small(4), small(3), small(3)
    stride, dilation = (small(3), small(2)), (small(3), small(2))
    pads = (draw(st.integers(0, 1)), draw(st.integers(0, 1)), 0, 0)
    if transposed:
        pads, size = (0, 0, 0, 0), (oy, ox)
    else:
        size = tuple(
            max(1, (o - 1) * s + (f - 1) * d + 1 - p - draw(st.integers(0, 1)))
            for o, f, s, d, p in zip((oy, ox), (fy, fx), stride, dilation, pads[:2], strict=True)
        )
    return LoopDims(
        small(2), small(2), small(3), small(3), oy, ox, fy, fx, stride, dilation, pads, size, transposed
    )  # fmt: skip


@st.composite
def mapped(draw):
    dims = draw(layers())
    assume(dims.macs <= 400)
    inside, outside, loops = dict.fromkeys(NAMES, 1), dict.fromkeys(NAMES, 1), []
    for d in draw(st.permutations(NAMES))[:2]:
        (inside if draw(st.booleans()) else outside)[d] = draw(st.integers(1, min(3, getattr(dims, d))))
    for d in NAMES:
        left = math.ceil(getattr(dims, d) / (inside[d] * outside[d]))
        if left > 1:
            first = draw(st.integers(1, left))
            second = draw(st.integers(1, math.ceil(left / first)))
            cuts = (first, second, math.ceil(left / (first * second)))
            loops += [(d, trips) for trips in cuts if trips > 1]
    loops = tuple(draw(st.permutations(loops)))
    return dims, Mapping(loops, inside, outside), draw(st.integers(1, 40))


def nests_of(dims, mapping):
    """One nest as the library keeps it."""
    unrolls = np.array([[[cut[d] for d in NAMES] for cut in (mapping.inside, mapping.outside)]])
    loop_dims = np.array([[NAMES.index(d) for d, _ in mapping.loops]], dtype=np.int64).reshape(1, -1)
    loop_sizes = np.array([[trips for _, trips in mapping.loops]], dtype=np.int64).reshape(1, -1)
    return Nests(Nest(dims), unrolls, np.zeros(1, dtype=np.int64), loop_dims, loop_sizes)


def counted(dims, mapping, operand, capacity):
    """(position, words into instances, words asked of the parent, tile) by the product."""
    nests = nests_of(dims, mapping)
    tiles = nests.tiles(operand, (0,))
    position = nests.place(tiles, np.array([float(capacity)]))[0]
    at = np.maximum(position, 0)
    entered = nests.moved(operand, at, (0,))
    asked = nests.moved(operand, at, (0, 1))
    return int(position[0]), float(entered[0]), float(asked[0]), float(tiles[0, at[0]])


@settings(max_examples=300, deadline=None)
@given(mapped(), st.sampled_from(OPERANDS))
def test_exact_random_layers_and_mappings_equals_walking_the_loops(case, operand):
    dims, mapping, capacity = case
    position, entered, asked, tile = counted(dims, mapping, operand, capacity)
    if position < 0:
        return
    truth, nests = walk(operand, dims, mapping, position), nests_of(dims, mapping)
    assert (moved(nests, operand, 0, position, (0,)), moved(nests, operand, 0, position, (0, 1))) == truth[:2]
    if counted_twice(nests, operand, 0, position):
        assert entered >= truth[0] and asked >= truth[1]
    else:
        assert (entered, asked) == truth[:2]
    assert truth[2] <= tile <= capacity


TWICE = LoopDims(K=2, C=3), Mapping((("C", 2), ("K", 2), ("C", 2)), dict.fromkeys(NAMES, 1), dict.fromkeys(NAMES, 1))


def test_exact_dimension_cut_twice_with_remainder_finds_the_tile_in_place():
    """C = 3 as 2 x 2 around K: the third channel is there alone, so K finds it in place."""
    dims, mapping = TWICE
    assert counted_twice(nests_of(dims, mapping), "I", 0, 0)
    assert moved(nests_of(dims, mapping), "I", 0, 0, (0,)) == walk("I", dims, mapping, 0)[0] == 5


@pytest.mark.parametrize("cut", ["OX", "FX"])
def test_exact_padded_window_cut_twice_with_remainder_equals_walking_the_loops(cut):
    """The tiles that are found in place begin late in the row: there the padding at the other end counts."""
    dims = LoopDims(K=2, OX=3, FX=3, pads=(0, 0, 0, 1), input_size=(1, 4))
    other = ("FX" if cut == "OX" else "OX", 3)
    for loops in itertools.permutations([(cut, 2), (cut, 2), ("K", 2), other]):
        mapping = Mapping(loops, dict.fromkeys(NAMES, 1), dict.fromkeys(NAMES, 1))
        nests = nests_of(dims, mapping)
        for position in range(len(loops)):
            assert moved(nests, "I", 0, position, (0,)) == walk("I", dims, mapping, position)[0]


def test_product_of_a_dimension_cut_twice_counts_too_much():
    """The broken twin: the plain product fetches the third channel again."""
    assert counted(*TWICE, "I", 1)[1] == 6


CASES = {
    "strided 1x1": LoopDims(K=2, C=3, OY=4, OX=4, stride=(2, 2), input_size=(8, 8)),
    "dilated": LoopDims(K=2, C=2, OY=5, OX=3, FY=3, FX=2, stride=(2, 1), dilation=(2, 1), input_size=(13, 4)),
    "depthwise padded": LoopDims(G=4, OY=4, OX=4, FY=3, FX=3, pads=(1, 1, 1, 1), input_size=(4, 4)),
    "grouped": LoopDims(G=2, K=3, C=2, OY=3, OX=3, FY=1, FX=3, pads=(0, 1, 0, 1), input_size=(3, 3)),
    "matrix product": LoopDims(G=2, K=5, C=6, OY=4),
    "transposed": LoopDims(
        K=2, C=3, OY=3, OX=3, FY=2, FX=2, stride=(2, 2), input_size=(3, 3), transposed=True
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("operand", OPERANDS)
def test_moved_named_layers_equals_walking_the_loops(name, operand):
    dims = CASES[name]
    inside, outside = dict.fromkeys(NAMES, 1), dict.fromkeys(NAMES, 1)
    outside["C"], outside["OY"] = min(2, dims.C), min(2, dims.OY)
    loops = [(d, math.ceil(getattr(dims, d) / outside[d])) for d in ("FX", "OX", "K", "FY", "C", "OY", "G")]
    mapping = Mapping(tuple(loop for loop in loops if loop[1] > 1), inside, outside)
    for capacity in (1, 4, 9, 30):
        position, entered, asked, _ = counted(dims, mapping, operand, capacity)
        assert (entered, asked) == walk(operand, dims, mapping, position)[:2]


def test_moved_fractional_passes_disagrees_with_walking_the_loops():
    """The broken twin: K = 5 on two columns with fractional passes reads inputs 2.5 times, in truth 3 times."""
    dims = LoopDims(K=5, C=2, OX=3, input_size=(1, 3))
    outside = dict.fromkeys(NAMES, 1) | {"K": 2}
    mapping = Mapping((("C", 2), ("OX", 3), ("K", 3)), dict.fromkeys(NAMES, 1), outside)
    position, entered, asked, _ = counted(dims, mapping, "I", 1)
    truth = walk("I", dims, mapping, position)
    assert (entered, asked) == truth[:2]
    assert asked == 6 * 3
    assert asked != 6 * 5 / 2


def test_moved_span_formula_disagrees_with_distinct_rows():
    """The broken twin of the window: the contiguous span of 14 outputs, stride 2, 3 taps dilated by 2 is 31, not 16."""
    dims = LoopDims(OY=14, FY=3, stride=(2, 1), dilation=(2, 1), input_size=(31, 1))
    mapping = Mapping((("FY", 3), ("OY", 14)), dict.fromkeys(NAMES, 1), dict.fromkeys(NAMES, 1))
    _, entered, _, tile = counted(dims, mapping, "I", 100)
    assert (entered, tile) == (16, 16)
    assert entered != (14 - 1) * 2 + (3 - 1) * 2 + 1
