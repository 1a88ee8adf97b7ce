"""Folding: equal channels are merged without error, clusters are those of an exhaustive search, readers add up."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwc_onnx.graph.layer_graph import FIXED, ChannelGroup
from hwc_onnx.options import Options
from hwc_onnx.pruning.fold import _to_means, represent
from hwc_onnx.pruning.table import ON_REQUEST, WEIGHTS_ALONE
from hwc_onnx.recovery.folding import folded, moved, occurrences, representatives, shared_by_equals, stand_ins
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from hwc_onnx.rewrite.remove_channels import remove_channels
from hwc_onnx.uniform import parse_spec, uniform
from tests import tiny_models
from tests.pruning.prepared import F64, Prepared, prepare

MODELS = ("chain", "residual", "depthwise", "concat", "flatten_gemm", "mlp_block")
SPEC = "w16a16,coarse=fold:0.5"


def doubled(name: str) -> onnx.ModelProto:
    """The model with each second channel of every group that can lose channels made equal to the one before it."""
    plain = prepare(tiny_models.ALL[name], images=4)
    proto = onnx.ModelProto()
    proto.CopyFrom(plain.proto)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    layers = {layer.key: layer for layer in plain.graph.layers}
    for group in plain.graph.channel_groups:
        if group.locked_because is not None or group.parts:
            continue
        made = {(layers[key].weight, layers[key].output_axis) for key in group.producers}
        made |= {(layers[key].bias, 0) for key in group.producers if layers[key].bias is not None}
        for member in group.members:
            read = any(layers[key].weight == member.tensor and layers[key].input_axis == member.axis for key in group.consumers)
            if member.tensor not in tensors or (read and (member.tensor, member.axis) not in made):
                continue
            values = np.moveaxis(numpy_helper.to_array(tensors[member.tensor]).copy(), member.axis, 0)
            index = np.asarray(member.index)
            for channel in range(1, group.channels, 2):
                values[index == channel] = values[index == channel - 1]
            values = np.ascontiguousarray(np.moveaxis(values, 0, member.axis))
            tensors[member.tensor].CopyFrom(numpy_helper.from_array(values, member.tensor))
    return proto


def outputs(made: Prepared, spec: str = SPEC) -> F64:
    stitched = made.database.stitch(uniform(made.graph, parse_spec(spec)))
    assert stitched.keep
    small = insert_qdq(remove_channels(made.proto, made.graph, stitched.keep), made.graph, stitched.weights, {})
    return tiny_models.run(small, {"x": made.x})[0].astype(np.float64)


@pytest.mark.parametrize("model", MODELS)
def test_equal_channels_are_folded_without_error(model: str) -> None:
    made = prepare(lambda: doubled(model), recovery="none")
    expected = tiny_models.run(made.proto, {"x": made.x})[0]
    np.testing.assert_allclose(outputs(made), expected, rtol=1e-4, atol=1e-5)


def test_readers_that_do_not_add_up_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin: the right channels stay, but what is read of the others is lost."""
    made = prepare(lambda: doubled("chain"), recovery="none")
    monkeypatch.setattr("hwc_onnx.recovery.layer.folded", lambda rows, into: rows)
    expected = tiny_models.run(made.proto, {"x": made.x})[0]
    assert not np.allclose(outputs(made), expected, rtol=1e-2, atol=1e-2)


def test_channels_that_differ_in_their_bias_alone_are_not_equal() -> None:
    plain = doubled("chain")
    first = prepare(lambda: plain, recovery="none").graph.layers[0]
    for tensor in plain.graph.initializer:
        if tensor.name == first.bias:
            values = numpy_helper.to_array(tensor).copy()
            values[:4] += [0.0, 3.0, 0.0, -3.0]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    made = prepare(lambda: plain, recovery="none")
    group = made.graph.group_of(first.key)
    assert made.database.keep(group.root, "fold", 0.25).tolist()[:4] == [0, 1, 2, 3]


def test_a_reader_adds_up_the_columns_of_the_channels_that_one_stands_for() -> None:
    made = prepare(tiny_models.chain, recovery="ranges")
    reader = made.graph.layers[1]
    group = made.graph.group_of(made.graph.layers[0].key)
    keep = made.database.keep(group.root, "fold", 0.5)
    stands = stand_ins(group, made.database.folds.features(group.root), keep)
    weight = made.weight(reader)
    expected = np.stack([weight[:, stands == channel].sum(axis=1) for channel in keep], axis=1)
    entry = made.database.entry(reader.key, parse_spec("w16a16"), keep, "fold")
    np.testing.assert_allclose(entry.weight.codes, expected, rtol=1e-5, atol=1e-6)
    lost = made.database.entry(reader.key, parse_spec("w16a16"), keep, "l1")
    assert not np.allclose(lost.weight.codes, expected)


def test_with_full_recovery_the_refit_does_the_same_and_more() -> None:
    none, full = (prepare(tiny_models.chain, images=64, recovery=recovery) for recovery in ("none", "full"))
    reader = none.graph.layers[1]
    root = none.graph.group_of(none.graph.layers[0].key).root
    errors = []
    for made in (none, full):
        keep = made.database.keep(root, "fold", 0.25)
        errors.append(made.database.entry(reader.key, parse_spec("w16a16"), keep, "fold").error_fit)
    assert errors[1] < errors[0]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kept", [1, 2, 3, 6, 7])
def test_clusters_are_nearly_those_of_an_exhaustive_search(seed: int, kept: int) -> None:
    features = np.random.default_rng(seed).normal(size=(7, 3))
    found = represent(features, kept, np.random.default_rng(0))

    def error(stays: object) -> float:
        apart = features[:, None, :] - features[list(stays)]  # type: ignore[call-overload]
        return float(np.square(apart).sum(axis=2).min(axis=1).sum())

    least = min(error(stays) for stays in combinations(range(7), kept))
    assert len(set(found.tolist())) == kept and found.tolist() == sorted(found.tolist())
    assert least - 1e-9 <= error(found) <= 1.35 * least + 1e-9


def test_distances_from_means_need_products_only() -> None:
    features = np.random.default_rng(0).normal(size=(9, 5))
    member = np.array([2, 0, 1, 1, 0, 2, 2, 2, 0])
    means = np.stack([features[member == k].mean(axis=0) for k in range(3)])
    expected = np.square(features[:, None, :] - means).sum(axis=2)
    np.testing.assert_allclose(_to_means(features @ features.T, member), expected, rtol=1e-9)
    with pytest.raises(AssertionError):  # members in another order than their labels say
        np.testing.assert_allclose(_to_means(features @ features.T, member[::-1]), expected, rtol=1e-9)


def test_more_clusters_than_different_channels_are_still_filled() -> None:
    features = np.repeat(np.random.default_rng(0).normal(size=(2, 3)), 4, axis=0)
    for kept in range(1, 9):
        assert len(np.unique(represent(features, kept, np.random.default_rng(1)))) == kept


def test_parts_keep_their_shares_and_fixed_channels_stay() -> None:
    parts = (0, 0, 0, 0, FIXED, 1, 1, 1, 1, 1, 1)
    group = ChannelGroup("root", 11, (), (), (), parts=parts)
    features = np.random.default_rng(0).normal(size=(11, 4))
    features[0] = features[5]
    keep = representatives(group, features, represent, 6, np.random.default_rng(0))
    assert 4 in keep and len(keep) == 6
    assert tuple(int(np.isin(keep, np.flatnonzero(np.array(parts) == p)).sum()) for p in (0, 1)) == group.kept_of_parts(6)
    stands = stand_ins(group, features, keep)
    assert all(parts[channel] == parts[stand] for channel, stand in enumerate(stands))
    assert np.isin(stands, keep).all() and (stands[keep] == keep).all()


def test_positions_of_a_channel_lead_to_the_same_positions_of_its_stand_in() -> None:
    index = np.array([0, 0, 1, 1, -1, 2, 2])
    assert occurrences(index).tolist() == [0, 1, 0, 1, 0, 0, 1]
    target = moved(index, np.array([2, 1, 2]), np.arange(7))
    assert target.tolist() == [5, 6, 2, 3, 4, 5, 6]
    rows = np.arange(7, dtype=np.float64)[None, None]
    assert folded(rows, target)[0, 0].tolist() == [0, 0, 2, 3, 4, 5, 7]


def test_what_reads_equal_channels_is_shared_among_them() -> None:
    made = np.array([[1.0, 2.0], [3.0, 1.0], [1.0, 2.0]])
    read = np.array([[2.0], [5.0], [4.0]])
    assert shared_by_equals(made, read).tolist() == [[3.0], [5.0], [3.0]]


def test_the_same_setting_folds_the_same_channels() -> None:
    first, again = (prepare(tiny_models.residual).database for _ in range(2))
    for group in first.graph.channel_groups:
        np.testing.assert_array_equal(first.keep(group.root, "fold", 0.4), again.keep(group.root, "fold", 0.4))


def test_a_search_folds_only_where_it_is_asked_to() -> None:
    assert "fold" in ON_REQUEST & WEIGHTS_ALONE and not ON_REQUEST & set(Options().pruning)
    assert Options(algorithms=("fold", "obs")).pruning == ("fold", "obs")
