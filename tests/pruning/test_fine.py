"""Fine-grained algorithms against their definitions, written as loops over the weight and the raw input patches."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from hwc_onnx.errors import UsageError
from hwc_onnx.plan import LayerConfig
from hwc_onnx.pruning.base import FineAlgorithm, WeightContext, keep_largest, keep_pattern, runs_of
from hwc_onnx.pruning.obs import score as obs_score
from hwc_onnx.pruning.table import COARSE, FINE, NONE, algorithm, granularity
from hwc_onnx.recovery.block_masks import select_blocks
from hwc_onnx.recovery.layout import layout_of
from hwc_onnx.recovery.obs import obs_select
from hwc_onnx.recovery.quadratic import RIDGE
from tests.pruning.prepared import F64, Prepared, prepare
from tests.recovery.layers import KINDS

PATTERN = {"nm24": (2, 4), "nm48": (4, 8)}
Bools = NDArray[np.bool_]


def smallest(scores: F64, count: int) -> Bools:
    """Keep all but the `count` smallest of a flat array, earlier positions first among equals."""
    keep = np.ones(scores.size, dtype=bool)
    for place in sorted(range(scores.size), key=lambda i: (scores[i], i))[:count]:
        keep[place] = False
    return keep


def input_norms(x: F64) -> F64:
    return np.array([[np.sqrt(np.mean([value**2 for value in column])) for column in group.T] for group in x])


def saliency(rows: F64, x: F64, centred: bool) -> F64:
    """What zeroing one weight costs when the rest of its row is free to answer, by solving for the rest."""
    cost = np.empty_like(rows)
    for g in range(rows.shape[0]):
        inputs = x[g] - x[g].mean(axis=0) if centred else x[g]
        matrix = inputs.T @ inputs / len(inputs)
        matrix += RIDGE * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
        for j in range(rows.shape[2]):
            rest = [i for i in range(rows.shape[2]) if i != j]
            left = matrix[j, j]
            if rest:
                left -= matrix[j, rest] @ np.linalg.solve(matrix[np.ix_(rest, rest)], matrix[rest, j])
            cost[g, :, j] = rows[g, :, j] ** 2 * left
    return cost


def expected_mask(name: str, rows: F64, x: F64, taps: int, ratio: float, centred: bool) -> Bools:
    """The mask [groups, rows, d] by definition."""
    count = round(ratio * rows.size)
    if name == "magnitude":
        return smallest(np.abs(rows).ravel(), count).reshape(rows.shape)
    if name == "sensitivity":
        # the quality parameter s at which |w| < s * deviation of the filter is true for the asked share
        deviation = np.array([[np.sqrt(np.mean((row - row.mean()) ** 2)) for row in group] for group in rows])
        multiple = np.abs(rows) / deviation[:, :, None]
        ordered = sorted(multiple.ravel())
        s = (ordered[count - 1] + ordered[count]) / 2 if count else 0.0
        return np.abs(rows) >= s * deviation[:, :, None]
    if name == "wanda":
        norms, keep = input_norms(x), np.ones(rows.shape, dtype=bool)
        for g, r in np.ndindex(*rows.shape[:2]):
            keep[g, r] = smallest(np.abs(rows[g, r]) * norms[g], round(ratio * rows.shape[2]))
        return keep
    cost = saliency(rows, x, centred)
    if name == "obs":
        return smallest(cost.ravel(), count).reshape(rows.shape)
    if name == "block4":
        return block_mask(cost, taps, 4, ratio)
    kept, run = PATTERN[name]
    keep = np.zeros(rows.shape, dtype=bool)
    for g, r, tap in itertools.product(*map(range, rows.shape[:2]), range(taps)):
        channels = rows.shape[2] // taps
        for first in range(0, channels, run):
            columns = [c * taps + tap for c in range(first, min(first + run, channels))]
            keep[g, r, sorted(columns, key=lambda j: (-cost[g, r, j], j))[:kept]] = True
    return keep


def block_mask(cost: F64, taps: int, size: int, ratio: float) -> Bools:
    """Of all runs of `size` channels at one tap in any row, keep all but those with the least sums."""
    places = []
    for g, r, tap in itertools.product(*map(range, cost.shape[:2]), range(taps)):
        channels = cost.shape[2] // taps
        for first in range(0, channels, size):
            columns = [c * taps + tap for c in range(first, min(first + size, channels))]
            places.append((cost[g, r, columns].sum(), (g, r, columns)))
    keep = np.ones(cost.shape, dtype=bool)
    for _, (g, r, columns) in sorted(places, key=lambda one: one[0])[: round(ratio * len(places))]:
        keep[g, r, columns] = False
    return keep


def found_mask(made: Prepared, name: str, ratio: float) -> tuple[Bools, Bools]:
    """The mask that the database applies without repair, and the one by definition."""
    layer = made.layer(0)
    layout = layout_of(layer)
    entry = made.database.entry(layer.key, LayerConfig(algorithm=name, ratio=ratio, weight_bits=16, activation_bits=16))
    centred = made.database.parameters[layer.key].takes_bias
    rows = layout.to_rows(made.weight(layer))
    return layout.to_rows(entry.weight.codes) != 0, expected_mask(
        name, rows, made.patches(layer), layout.taps, ratio, centred
    )


@pytest.mark.parametrize("kind", ["conv", "conv grouped", "transposed grouped", "gemm transB=0", "matmul"])
@pytest.mark.parametrize("name", FINE)
def test_zeros_lie_where_the_definition_says(name: str, kind: str) -> None:
    made = prepare(KINDS[kind], recovery="none")
    for ratio in (0.5,) if name in PATTERN else (0.25, 0.5, 0.9):
        found, expected = found_mask(made, name, ratio)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", [name for name in FINE if name != "magnitude"])
def test_zeros_of_another_definition_are_noticed(name: str) -> None:
    """Broken twin: plain magnitudes, in the scope of each algorithm."""
    made = prepare(KINDS["conv"], recovery="none")
    found, expected = found_mask(made, name, 0.5)
    layout = layout_of(made.layer(0))
    rows = np.abs(layout.to_rows(made.weight(made.layer(0)))).reshape(layout.outputs, -1)
    if name in PATTERN:
        plain = keep_pattern(rows, PATTERN[name], layout.taps)
    elif name == "wanda":
        plain = keep_largest(rows, 0.5)
    else:
        plain = keep_largest(rows.reshape(1, -1), 0.5)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(plain.reshape(expected.shape), expected) or name == "nm48"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recovery", ["full", "none"])
def test_the_asked_share_is_zero_exactly(kind: str, recovery: str) -> None:
    made = prepare(KINDS[kind], recovery=recovery)
    layer = made.layer(0)
    layout = layout_of(layer)
    for name, ratio in itertools.product(("magnitude", "sensitivity", "wanda", "obs"), (0.0, 0.3, 0.5, 0.95)):
        config = LayerConfig(algorithm=name, ratio=ratio, weight_bits=16, activation_bits=16)
        weight = made.database.entry(layer.key, config).weight
        zeros = int((weight.codes == 0).sum())
        size = weight.codes.size
        if name == "wanda":
            assert zeros == layout.outputs * min(round(ratio * layout.width), layout.width - 1)
        else:
            assert zeros == round(ratio * size)
        assert weight.weight_density == pytest.approx(1 - zeros / size)
        rounded = made.database.entry(layer.key, config.model_copy(update={"weight_bits": 4})).weight
        assert np.count_nonzero(rounded.codes) <= size - zeros


AXES: dict[str, Callable[[NDArray[np.generic]], NDArray[np.generic]]] = {
    # each turns the ONNX weight into [anything, input channels], from the operator's specification
    "conv": lambda w: np.moveaxis(w, 1, -1).reshape(-1, w.shape[1]),
    "conv grouped": lambda w: np.moveaxis(w, 1, -1).reshape(-1, w.shape[1]),
    "transposed": lambda w: np.moveaxis(w, 0, -1).reshape(-1, w.shape[0]),
    "transposed grouped": lambda w: np.moveaxis(w.reshape(2, -1, *w.shape[1:]), 1, -1).reshape(-1, w.shape[0] // 2),
    "gemm transB=1": lambda w: w,
    "gemm transB=0": lambda w: w.T,
    "matmul": lambda w: w.T,
    "matmul from the left": lambda w: w,
}


def holds(lines: NDArray[np.generic], pattern: tuple[int, int]) -> bool:
    kept, run = pattern
    return all(
        np.count_nonzero(line[first : first + run]) <= kept for line in lines for first in range(0, len(line), run)
    )


@pytest.mark.parametrize("kind", AXES)
@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("recovery", ["full", "ranges", "none"])
def test_pattern_holds_along_the_input_channels(kind: str, bits: int, recovery: str) -> None:
    made = prepare(KINDS[kind], recovery=recovery)
    for name, pattern in PATTERN.items():
        config = LayerConfig(algorithm=name, weight_bits=bits, activation_bits=8)
        codes = made.database.entry(made.layer(0).key, config).weight.codes
        assert holds(AXES[kind](codes), pattern)
        if bits == 16 and AXES[kind](codes).shape[1] >= pattern[1]:
            assert np.count_nonzero(codes) == codes.size * pattern[0] // pattern[1]


def test_pattern_along_the_wrong_axis_is_noticed() -> None:
    """Broken twin: a Gemm whose weight is read as if it were transposed."""
    made = prepare(KINDS["gemm transB=0"], recovery="none")
    config = LayerConfig(algorithm="nm24", weight_bits=8, activation_bits=8)
    codes = made.database.entry(made.layer(0).key, config).weight.codes
    assert holds(codes.T, (2, 4)) and not holds(codes, (2, 4))


scores = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 24)), elements=st.integers(0, 5).map(float))


@given(scores, st.floats(0, 0.95))
@settings(max_examples=80, deadline=None)
def test_keep_largest_drops_an_exact_count_and_no_better_score(table: F64, ratio: float) -> None:
    keep = keep_largest(table, ratio)
    for row, stays in zip(table, keep, strict=True):
        assert (~stays).sum() == min(round(ratio * row.size), row.size - 1)
        assert stays.any()
        assert stays.all() or row[~stays].max() <= row[stays].min()


@given(scores, st.sampled_from([(2, 4), (4, 8), (1, 3)]), st.sampled_from([1, 2, 3]))
@settings(max_examples=80, deadline=None)
def test_keep_pattern_keeps_the_best_of_every_run(table: F64, pattern: tuple[int, int], taps: int) -> None:
    wide = np.repeat(table, taps, axis=1) + np.tile(np.arange(taps) * 0.1, table.shape[1])
    keep = keep_pattern(wide, pattern, taps)
    kept, run = pattern
    for row, tap in itertools.product(range(len(table)), range(taps)):
        here, stays = wide[row, tap::taps], keep[row, tap::taps]
        for first in range(0, len(here), run):
            part, left = here[first : first + run], stays[first : first + run]
            assert left.sum() == min(kept, len(part))
            assert left.all() or part[~left].max() <= part[left].min()


def test_obs_score_of_independent_inputs_is_wanda_squared() -> None:
    """With a diagonal second moment D, w^2 / [D^-1]_jj = (|w| sqrt(D_jj))^2."""
    weight, power = np.random.default_rng(0).normal(size=(2, 4, 6))
    power = power**2 + 0.1
    context = WeightContext(1, power, 1 / power)
    wanda = algorithm("wanda")
    assert wanda is not None
    np.testing.assert_allclose(obs_score(weight, context), wanda.score(weight, context) ** 2)  # type: ignore[arg-type]


def test_none_leaves_the_layer_alone() -> None:
    assert algorithm(NONE) is None and granularity(NONE) == NONE
    made = prepare(KINDS["conv"])
    entry = made.database.entry(made.layer(0).key, LayerConfig(weight_bits=16, activation_bits=16))
    np.testing.assert_array_equal(entry.weight.codes, made.weight(made.layer(0)).astype(np.float32))
    assert entry.error_heldout == 0.0


def test_every_short_name_leads_to_an_algorithm_of_that_name() -> None:
    for name in FINE | COARSE:
        found = algorithm(name)
        assert found is not None and found.name == name
        assert granularity(name) == ("fine" if name in FINE else "coarse") == found.granularity
    assert algorithm("hwc_onnx.pruning.l1:ALGORITHM") is algorithm("l1")
    with pytest.raises(UsageError, match="magnitude"):
        algorithm("magnitud")
    with pytest.raises(UsageError, match="must be a FineAlgorithm or CoarseAlgorithm"):
        algorithm("hwc_onnx.pruning.l1:score")


@pytest.mark.parametrize("name", ["obs", "block4", "magnitude"])
@pytest.mark.parametrize("recovery", ["full", "none"])
def test_no_layer_becomes_all_zero(name: str, recovery: str) -> None:
    made = prepare(KINDS["matmul"], recovery=recovery)
    config = LayerConfig(algorithm=name, ratio=0.95, weight_bits=16, activation_bits=16)
    layer = made.layer(0)
    entry = made.database.entry(layer.key, config)
    assert np.count_nonzero(entry.weight.codes)
    rows = np.random.default_rng(0).normal(size=(1, 2, 4))
    factor = np.eye(4)[None]
    for keep, _ in (obs_select(rows, factor, 0.95), select_blocks(rows, factor, runs_of(4, 1, 4), 0.95)):
        assert keep.any()


@pytest.mark.parametrize("facts", [{"scope": "block"}, {"block": 4}, {"scope": "pattern", "pattern": (2, 4), "block": 4}, {"scope": "pattern"}])
def test_an_algorithm_whose_scope_lacks_what_it_needs_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="scope"):
        FineAlgorithm("mine", obs_score, **facts)  # type: ignore[arg-type]
