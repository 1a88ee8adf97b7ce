"""Rows that a window moves, against counting the set of rows of every tile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.cost.row_table import RowTable
from hwc_onnx.cost.window import NEVER, Axis, Cut, Side, _points, rows_moved


def held_by(cut, index):
    """Tile and instance of an index, as `Cut` describes them."""
    step, lane = divmod(index, cut.whole)
    return step // cut.extent, lane // cut.inside


def counted(axis, outputs, taps):
    """The definition: distinct rows inside the tensor of each pair of tiles, one by one."""
    found = set()
    for o in range(axis.outputs):
        for k in range(axis.taps):
            row = o * axis.stride + k * axis.dilation - axis.pad
            if 0 <= row < axis.size:
                found.add((held_by(outputs, o), held_by(taps, k), row))
    return len(found)


def counted_in_arrays(axis, outputs, taps):
    """The same for large axes: every row of every pair, sorted."""
    rows = np.arange(axis.outputs)[:, None] * axis.stride + np.arange(axis.taps) * axis.dilation - axis.pad
    under = taps.tiles(axis.taps)
    tile = outputs.tiles(axis.outputs)[:, None] * (int(under.max()) + 1) + under
    keys = np.sort((tile * axis.size + rows)[(rows >= 0) & (rows < axis.size)])
    return int(np.count_nonzero(np.diff(keys))) + min(1, keys.size)


@st.composite
def cuts(draw, length):
    whole = draw(st.integers(1, length + 2))
    return Cut(draw(st.integers(1, length + 1)), draw(st.integers(1, whole)), whole)


@st.composite
def windows(draw, outputs, taps):
    o, k = draw(st.integers(1, outputs)), draw(st.integers(1, taps))
    stride, dilation, pad = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(-3, 6))
    size = max(1, (o - 1) * stride + (k - 1) * dilation + 1 - pad + draw(st.integers(-6, 3)))
    return Axis(o, k, stride, dilation, pad, size), draw(cuts(o)), draw(cuts(k))


@settings(max_examples=1500, deadline=None)
@given(windows(9, 7))
def test_rows_moved_of_random_cuts_equals_the_sets_of_rows(case):
    assert rows_moved(*case) == counted(*case)


@settings(max_examples=150, deadline=None)
@given(windows(60, 90))
def test_rows_moved_of_long_windows_equals_all_rows_sorted(case):
    assert rows_moved(*case) == counted_in_arrays(*case)


AUDIO = Axis(2740, 256, 2, 1, 0, 5734)
"""A layer of an audio model: long rows, and a kernel as long as other layers' rows."""


@pytest.mark.parametrize("cut", [Cut(1, 1, 1), Cut(7, 1, 16), Cut(50, 4, 16), Cut(3, 5, 12), Cut(2740, 1, 1)])
@pytest.mark.parametrize("taps", [Cut(1, 1, 1), Cut(16, 2, 6), Cut(256, 1, 1)])
def test_rows_moved_of_an_audio_layer_equals_all_rows_sorted(cut, taps):
    assert rows_moved(AUDIO, cut, taps) == counted_in_arrays(AUDIO, cut, taps)


def test_what_is_compared_does_not_grow_with_the_longer_side():
    """2740 outputs are walked: only the 256 taps of each of 16 PEs set off."""
    taps = Side.of(256, 1, Cut(256, 1, 1))
    assert [len(_points(16, 2, inside, taps)[0]) for inside in (1, 16)] == [256, 286]


def test_rows_moved_of_a_large_axis_is_counted_without_its_array():
    """2^20 outputs times 2^12 taps would be 4 x 10^9 rows."""
    axis = Axis(1 << 20, 1 << 12, 1, 1, 0, (1 << 20) + (1 << 12) - 1)
    assert rows_moved(axis, Cut(1 << 20, 1, 1), Cut(1 << 12, 1, 1)) == axis.size
    assert rows_moved(axis, Cut(1, 1, 1), Cut(1, 1, 1)) == axis.outputs * axis.taps


def test_a_point_passed_within_the_tile_is_not_counted_again():
    """Three taps, stride 1: a walk comes to the next tap after one round, and the last tap's never does."""
    lane, row, gap = _points(1, 1, 1, Side.of(3, 1, Cut(3, 1, 1)))
    assert (lane.tolist(), row.tolist(), gap.tolist()) == ([0, 0, 0], [0, 1, 2], [1, 1, NEVER])


def test_counting_without_the_gaps_disagrees_with_the_sets():
    """The broken twin: every walk in full counts overlapping rows again."""
    axis, cut = Axis(5, 3, 1, 1, 0, 7), (Cut(5, 1, 1), Cut(3, 1, 1))
    assert rows_moved(axis, *cut) == counted(axis, *cut) == 7 != axis.outputs * axis.taps


@settings(max_examples=100, deadline=None)
@given(windows(9, 7), st.data())
def test_row_table_asked_in_several_turns_equals_rows_moved_of_each(case, data):
    axis = case[0]
    pes = [data.draw(st.tuples(st.integers(1, 4), st.integers(1, 3))) for _ in range(3)]
    table = RowTable(axis, np.array([[o, k, 1, k] for o, k in pes]))
    for _ in range(3):
        shape = (2, data.draw(st.integers(1, 4)))
        draw = lambda top, shape=shape: np.array(  # noqa: E731
            data.draw(st.lists(st.integers(1, top), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
        ).reshape(shape)
        steps_o, steps_k, unroll = draw(axis.outputs), draw(axis.taps), draw(3)[0] - 1
        expected = [
            [
                rows_moved(axis, Cut(int(o), 1, pes[u][0]), Cut(int(k), pes[u][1], pes[u][1]))
                for u, o, k in zip(unroll, row_o, row_k, strict=True)
            ]
            for row_o, row_k in zip(steps_o, steps_k, strict=True)
        ]
        assert table.rows(unroll, steps_o, steps_k).tolist() == expected


def test_row_table_has_room_for_what_was_asked_only():
    table = RowTable(Axis(1 << 20, 256, 2, 1, 0, 1 << 21), np.array([[1, 1, 1, 1]]))
    table.rows(np.zeros(3, int), np.array([1, 7, 1 << 20]), np.array([1, 1, 256]))
    assert table._table.size == 24


def test_row_table_broadcasts_steps_of_an_absent_loop():
    """A dimension that no loop concerns has one step in all nests, given once."""
    table = RowTable(Axis(4, 1, 1, 1, 0, 4), np.array([[1, 1, 1, 1]]))
    found = table.rows(np.zeros(3, int), np.array([[1, 2, 4]]), np.ones(1, int))
    assert found.tolist() == [[4, 4, 4]]
