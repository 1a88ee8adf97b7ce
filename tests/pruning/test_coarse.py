"""Coarse-grained algorithms against their definitions: which channels stay, and that removing them equals masking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hwc_onnx.database import Stitched
from hwc_onnx.plan import kept_count
from hwc_onnx.pruning import bernoulli, gram
from hwc_onnx.pruning.base import Consumer
from hwc_onnx.pruning.table import COARSE, algorithm
from hwc_onnx.quantization.quantizer import QuantizedWeight
from hwc_onnx.recovery.channels import Orders, choose_channels
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from hwc_onnx.rewrite.mask_channels import mask_channels
from hwc_onnx.rewrite.remove_channels import remove_channels
from hwc_onnx.uniform import parse_spec, uniform
from tests import tiny_models
from tests.pruning.prepared import F64, Prepared, prepare

MODELS = ("chain", "residual", "depthwise", "concat", "flatten_gemm", "mlp_block")


def by_channel(made: Prepared, key: str, axis: int) -> F64:
    """A layer's weight as [positions along the axis, all the rest]."""
    layer = next(layer for layer in made.graph.layers if layer.key == key)
    weight = np.moveaxis(made.weight(layer), axis, 0)
    return weight.reshape(len(weight), -1)


def score(name: str, channels: F64) -> F64:
    """A channel's score by definition."""
    if name in ("l1", "reconstruct"):
        return np.array([sum(abs(w) for w in row) for row in channels])
    if name == "l2":
        return np.array([sum(w * w for w in row) ** 0.5 for row in channels])
    return np.array([sum(np.linalg.norm(row - other) for other in channels) for row in channels])


def least(scores: F64, count: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda c: (-scores[c], c))[:count])


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("name", ["l1", "l2", "fpgm", "reconstruct"])
def test_channels_of_a_chain_stay_by_definition(name: str, ratio: float) -> None:
    made = prepare(tiny_models.chain)
    first, second = made.graph.layers[:2]
    group = made.graph.group_of(first.key)
    channels = by_channel(made, second.key, 1) if name == "reconstruct" else by_channel(made, first.key, 0)
    expected = least(score(name, channels), kept_count(8, ratio))
    found = made.database.keep(group.root, name, ratio)
    assert found.tolist() == expected
    assert found.tolist() != least(-score(name, channels), len(expected))


@pytest.mark.parametrize("name", ["l1", "l2", "fpgm"])
def test_channels_of_a_residual_group_are_scored_over_all_their_producers(name: str) -> None:
    made = prepare(tiny_models.residual)
    group = max((g for g in made.graph.channel_groups if g.locked_because is None), key=lambda g: len(g.producers))
    assert len(group.producers) >= 2
    parts = [score(name, by_channel(made, key, 0)) for key in group.producers]
    total = sum(part / part.mean() for part in parts)
    assert made.database.keep(group.root, name, 0.5).tolist() == least(total, kept_count(group.channels, 0.5))


def refitted_error(consumers: list[Consumer], gone: list[int]) -> float:
    """What is left of the readers' outputs, relative and added, when the channels are gone and the rest is refitted."""
    total = 0.0
    for consumer in consumers:
        width = len(consumer.moment)
        matrix = consumer.moment + gram.RIDGE * np.trace(consumer.moment) / width * np.eye(width)
        root = np.linalg.cholesky(matrix).T
        stays = ~np.isin(consumer.channel, gone)
        power = float(np.einsum("rd,de,re->", consumer.weight, consumer.moment, consumer.weight))
        for row in consumer.weight:
            best = np.linalg.lstsq(root[:, stays], root @ row, rcond=None)[0]
            total += float(((root @ row - root[:, stays] @ best) ** 2).sum()) / power
    return total


def readers(seed: int, channels: int) -> list[Consumer]:
    """Two readers: one with two columns per channel, one that also reads something else."""
    rng = np.random.default_rng(seed)
    found = []
    for channel in (np.repeat(np.arange(channels), 2), np.append(rng.permutation(channels), -1)):
        x = rng.normal(size=(60, len(channel))) @ rng.normal(size=(len(channel), len(channel)))
        found.append(Consumer(rng.normal(size=(4, len(channel))), x.T @ x / 60, channel.astype(np.int64)))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_gram_removes_the_channel_that_least_squares_replaces_best_each_time(seed: int) -> None:
    consumers, gone = readers(seed, 6), []
    for _ in range(5):
        candidates = [c for c in range(6) if c not in gone]
        gone.append(min(candidates, key=lambda c: refitted_error(consumers, [*gone, c])))
    order = gram.order(consumers, 6, 6).tolist()
    assert order[:5] == gone and sorted(order) == list(range(6))
    assert gram.order(consumers, 6, 3).tolist() == gone[:3]


def test_gram_without_the_refit_between_removals_is_noticed() -> None:
    """Broken twin: all channels ranked once, by what removing each alone costs."""
    differs = 0
    for seed in range(5):
        consumers = readers(seed, 6)
        cost = np.array([refitted_error(consumers, [c]) for c in range(6)])
        differs += least(cost, 3) != sorted(gram.order(consumers, 6, 6).tolist()[3:])
    assert differs


def test_gram_in_a_network_keeps_the_readers_output_better_than_norms() -> None:
    made = prepare(tiny_models.chain, images=64)
    reader = made.graph.layers[1]
    root = made.graph.group_of(made.graph.layers[0].key).root
    config = parse_spec("w16a16")
    errors = {
        name: made.database.entry(reader.key, config, made.database.keep(root, name, 0.5)).error_fit
        for name in ("gram", "l1", "l2", "fpgm", "bernoulli")
    }
    assert errors["gram"] == min(errors.values())


def test_bernoulli_keeps_the_sum_in_expectation() -> None:
    """Each channel stays with probability kept / n; divided by that share, its expectation is one."""
    channels, kept, draws = 5, 2, 4000
    seen = np.zeros(channels)
    for seed in range(draws):
        scores = bernoulli.score(np.zeros((channels, 1)), np.random.default_rng(seed))
        seen[np.argsort(-scores)[:kept]] += channels / kept
    np.testing.assert_allclose(seen / draws, 1.0, atol=5 * (1.5 / draws) ** 0.5)


@pytest.mark.parametrize(("name", "factor"), [("bernoulli", 2.0), ("l1", 1.0)])
def test_only_bernoulli_scales_what_readers_read_up(name: str, factor: float) -> None:
    made = prepare(tiny_models.chain, recovery="ranges")
    reader = made.graph.layers[1]
    keep = made.database.keep(made.graph.group_of(made.graph.layers[0].key).root, name, 0.5)
    assert len(keep) == 4
    entry = made.database.entry(reader.key, parse_spec("w16a16"), keep, name)
    np.testing.assert_allclose(entry.weight.codes, factor * made.weight(reader)[:, keep], rtol=1e-6)


def test_bernoulli_draws_depend_on_the_setting_only() -> None:
    first, again = (prepare(tiny_models.chain).database for _ in range(2))
    root = first.graph.group_of(first.graph.layers[0].key).root
    for ratio in (0.25, 0.5, 0.75):
        np.testing.assert_array_equal(first.keep(root, "bernoulli", ratio), again.keep(root, "bernoulli", ratio))
    drawn = {tuple(first.keep(root, "bernoulli", 0.5 + i / 1000)) for i in range(20)}
    assert len(drawn) > 5


def test_reconstruct_refits_readers_by_least_squares_even_without_other_repairs() -> None:
    made = prepare(tiny_models.chain, images=64, recovery="ranges")
    reader = made.graph.layers[1]
    keep = made.database.keep(made.graph.group_of(made.graph.layers[0].key).root, "reconstruct", 0.5)
    entry = made.database.entry(reader.key, parse_spec("w16a16"), keep, "reconstruct")
    x = made.patches(reader)[0]
    x = x - x.mean(axis=0)
    columns = np.concatenate([np.arange(9) + 9 * c for c in keep])
    rows = made.weight(reader).reshape(12, -1)
    moment = x.T @ x / len(x)
    ridge = 0.01 * np.trace(moment[np.ix_(columns, columns)]) / len(columns)
    for row, found in zip(rows, entry.weight.codes.reshape(12, -1), strict=True):
        inputs = np.vstack([x[:, columns], np.sqrt(len(x) * ridge) * np.eye(len(columns))])
        outputs = np.concatenate([x @ row, np.sqrt(len(x) * ridge) * row[columns]])
        best = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
        np.testing.assert_allclose(found, best, rtol=1e-3, atol=1e-4)
        assert not np.allclose(row[columns], best, rtol=0.05)


@pytest.mark.parametrize("name", COARSE)
@given(st.floats(0, 0.95), st.sampled_from([1, 2, 3, 4, 8, 16]))
@settings(max_examples=25, deadline=None)
def test_kept_channels_fill_whole_lanes_and_are_never_none(name: str, ratio: float, lanes: int) -> None:
    made = PREPARED
    group = made.graph.group_of(made.graph.layers[0].key)
    chosen = algorithm(name)
    kept = choose_channels(group, made.database.views, made.database.maps, chosen, ratio, lanes)
    assert 1 <= len(kept) <= 8
    assert len(kept) % lanes == 0 or len(kept) == 8
    assert abs(len(kept) - 8 * (1 - ratio)) <= max(lanes / 2 + 1e-9, lanes - 8 * (1 - ratio))
    assert kept.tolist() == sorted(set(kept.tolist()))


def test_orders_are_found_anew_only_when_more_is_asked_for() -> None:
    """A second ratio puts most channels in order; each ratio keeps what it would have kept alone."""
    made = PREPARED
    group, views, maps = made.graph.group_of(made.graph.layers[0].key), made.database.views, made.database.maps
    asked: list[int] = []

    def order(consumers: Sequence[Consumer], channels: int, count: int) -> NDArray[np.int64]:
        asked.append(count)
        return gram.order(consumers, channels, count)

    chosen, orders = replace(algorithm("gram"), order=order), Orders(views, maps)
    for ratio in (0.125, 0.25, 0.5, 0.75, 0.25):
        kept = choose_channels(group, views, maps, chosen, ratio, 1, orders)
        assert kept.tolist() == choose_channels(group, views, maps, algorithm("gram"), ratio, 1).tolist()
    assert asked == [1, 6]


PREPARED = prepare(tiny_models.chain)


def masked(made: Prepared, stitched: Stitched) -> dict[str, QuantizedWeight]:
    """The stitched weights in their original shapes, with zeros where channels were removed."""
    maps, found = made.database.maps, {}
    for layer in made.graph.layers:
        if layer.key not in stitched.weights:
            continue
        weight = stitched.weights[layer.key]
        rows = maps.kept(layer, layer.output_axis, stitched.keep)
        columns = made.database.input_keep(layer.key, stitched.keep)
        outputs = made.database.views[layer.key].layout.outputs
        rows = np.arange(outputs) if rows is None else rows
        place = [np.arange(size) for size in layer.weight_shape]
        place[layer.output_axis] = rows
        if columns is not None:
            place[layer.input_axis] = columns
        codes = np.zeros(layer.weight_shape, weight.codes.dtype)
        codes[np.ix_(*place)] = weight.codes
        bias = None
        if weight.bias is not None:
            bias = np.zeros(outputs, np.float32)
            bias[rows] = weight.bias
        params = weight.params
        if params is not None:
            scale = np.ones(outputs, np.float32)
            scale[rows] = params.scale
            params = replace(params, scale=scale, zero_point=np.zeros(outputs, np.int32))
        found[layer.key] = QuantizedWeight(codes, params, bias, 1.0)
    return found


@pytest.mark.parametrize(
    ("model", "name"), [*((model, "gram") for model in MODELS), *(("chain", name) for name in COARSE if name != "gram")]
)
def test_a_stitched_plan_without_channels_equals_the_same_weights_as_zeros(model: str, name: str) -> None:
    made = prepare(tiny_models.ALL[model])
    plan = uniform(made.graph, parse_spec(f"w4a16,coarse={name}:0.4"))
    stitched = made.database.stitch(plan)
    assert stitched.keep
    feeds = {"x": made.x}
    removed = insert_qdq(remove_channels(made.proto, made.graph, stitched.keep), made.graph, stitched.weights, {})
    zeros = insert_qdq(made.proto, made.graph, masked(made, stitched), {})
    (found,), (expected,) = tiny_models.run(removed, feeds), tiny_models.run(zeros, feeds)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, tiny_models.run(made.proto, feeds)[0], rtol=1e-2, atol=1e-2)


def test_a_stitched_plan_with_weights_of_other_channels_is_noticed() -> None:
    """Broken twin: the channels of the first weight stand in another order than its readers expect."""
    made = prepare(tiny_models.chain)
    stitched = made.database.stitch(uniform(made.graph, parse_spec("w4a16,coarse=l1:0.5")))
    key = made.graph.layers[0].key
    turned = replace(stitched.weights[key], codes=np.ascontiguousarray(stitched.weights[key].codes[::-1]))
    smaller = remove_channels(made.proto, made.graph, stitched.keep)
    wrong = insert_qdq(smaller, made.graph, {**stitched.weights, key: turned}, {})
    zeros = insert_qdq(made.proto, made.graph, masked(made, stitched), {})
    (found,), (expected,) = tiny_models.run(wrong, {"x": made.x}), tiny_models.run(zeros, {"x": made.x})
    assert not np.allclose(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("model", MODELS)
def test_norm_pruning_without_repair_is_the_original_with_masked_channels(model: str) -> None:
    made = prepare(tiny_models.ALL[model], recovery="none")
    stitched = made.database.stitch(uniform(made.graph, parse_spec("w16a16,coarse=l1:0.5")))
    feeds = {"x": made.x}
    removed = insert_qdq(remove_channels(made.proto, made.graph, stitched.keep), made.graph, stitched.weights, {})
    expected = tiny_models.run(mask_channels(made.proto, made.graph, stitched.keep), feeds)[0]
    np.testing.assert_allclose(tiny_models.run(removed, feeds)[0], expected, rtol=1e-4, atol=1e-5)


def test_locked_groups_keep_every_channel() -> None:
    made = prepare(tiny_models.chain)
    locked = [group for group in made.graph.channel_groups if group.locked_because is not None]
    assert locked
    for group in locked:
        for name in COARSE:
            assert len(made.database.keep(group.root, name, 0.9)) == group.channels
