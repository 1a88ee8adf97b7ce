"""Removed channels equal masked channels, and a wrong removal does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from hwc_onnx.errors import PlanError
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.rewrite.mask_channels import mask_channels
from hwc_onnx.rewrite.remove_channels import remove_channels
from tests import tiny_models
from tests.tiny_models import Builder


def resize_to_sizes() -> onnx.ModelProto:
    b = Builder(["batch", 3, 4, 4])
    large = b.node("Resize", b.conv("x", 3, 6), "", "", b.const([1, 6, 8, 8], np.int64), mode="nearest")
    b.input.type.tensor_type.shape.dim[0].dim_value = 1
    return tiny_models.head(b, b.conv(large, 6, 4), 4)


def reshape_with_shared_target() -> onnx.ModelProto:
    b = Builder(["batch", 3, 4, 4])
    target = b.const([0, 6, 16], np.int64)
    left = b.node("Reshape", b.conv("x", 3, 6), target)
    right = b.node("Reshape", b.conv("x", 3, 6), target)
    both = b.node(
        "Concat", b.node("Transpose", left, perm=[0, 2, 1]), b.node("Transpose", right, perm=[0, 2, 1]), axis=2
    )
    return b.finish(b.linear(both, 12, 5))


def matmul_from_the_left() -> onnx.ModelProto:
    b = Builder(["batch", 5, 8])
    hidden = b.node("Relu", b.node("MatMul", b.weight(6, 5), "x"))
    return b.finish(b.node("MatMul", b.weight(4, 6), hidden))


def prelu_and_instance_norm() -> onnx.ModelProto:
    b = Builder(["batch", 3, 6, 6])
    first = b.node("PRelu", b.conv("x", 3, 6), b.weight(6, 1, 1))
    normed = b.node("InstanceNormalization", b.conv(first, 6, 5), b.vector(5), b.vector(5))
    return tiny_models.head(b, b.conv(b.node("Relu", normed), 5, 4), 4)


MODELS = tiny_models.ALL | {
    make.__name__: make
    for make in (resize_to_sizes, reshape_with_shared_target, matmul_from_the_left, prelu_and_instance_norm)
}


def prepared(name: str) -> tuple[onnx.ModelProto, LayerGraph]:
    proto = normalize(MODELS[name]())
    return proto, parse(proto)


def some_channels(graph: LayerGraph, seed: int, share: float = 0.6) -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return {
        group.root: np.sort(rng.choice(group.channels, max(1, int(share * group.channels)), replace=False))
        for group in graph.channel_groups
        if group.locked_because is None
    }


def outputs(proto: onnx.ModelProto) -> NDArray[np.float32]:
    return tiny_models.run(proto, tiny_models.feeds(proto))[0]


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("seed", range(3))
def test_removed_channels_equal_masked_channels(name: str, seed: int) -> None:
    proto, graph = prepared(name)
    keep = some_channels(graph, seed)
    before = proto.SerializeToString(deterministic=True)
    removed, masked = remove_channels(proto, graph, keep), mask_channels(proto, graph, keep)
    assert proto.SerializeToString(deterministic=True) == before
    np.testing.assert_allclose(outputs(removed), outputs(masked), rtol=1e-5, atol=1e-6)
    if keep:
        assert removed.ByteSize() < proto.ByteSize()
        assert not np.allclose(outputs(masked), outputs(proto), rtol=1e-5, atol=1e-6)
    onnx.checker.check_model(removed, full_check=True)
    assert list(removed.graph.output) == list(proto.graph.output)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_removed_channels_one_at_a_time_down_to_one(name: str) -> None:
    proto, graph = prepared(name)
    for root in some_channels(graph, 0):
        keep = {root: np.array([0])}
        np.testing.assert_allclose(
            outputs(remove_channels(proto, graph, keep)),
            outputs(mask_channels(proto, graph, keep)),
            rtol=1e-5,
            atol=1e-6,
        )


def broken(graph: LayerGraph, change: Mapping[str, tuple[int, ...]]) -> LayerGraph:
    """The same graph with another index on the members of these tensors."""
    groups = []
    for group in graph.channel_groups:
        members = tuple(replace(m, index=change[m.tensor]) if m.tensor in change else m for m in group.members)
        groups.append(replace(group, members=members))
    return replace(graph, channel_groups=tuple(groups))


@pytest.mark.parametrize(
    ("name", "tensor", "index"),
    [
        ("chain", "c2", tuple(reversed(range(8)))),
        ("depthwise", "c8", tuple(reversed(range(16)))),
        ("flatten_gemm", "c2", tuple(range(6)) * 16),
        ("chain", "c1", (1, 0, 2, 3, 4, 5, 6, 7)),
    ],
)
def test_removed_wrong_channels_of_one_tensor_are_noticed(name: str, tensor: str, index: tuple[int, ...]) -> None:
    proto, graph = prepared(name)
    root = next(g.root for g in graph.channel_groups if any(m.tensor == tensor for m in g.members))
    keep = {root: np.array([0, 2])}
    wrong = remove_channels(proto, broken(graph, {tensor: index}), keep)
    assert not np.allclose(outputs(wrong), outputs(mask_channels(proto, graph, keep)), rtol=1e-5, atol=1e-6)


def test_removed_nothing_leaves_the_model_equal() -> None:
    proto, graph = prepared("chain")
    assert remove_channels(proto, graph, {"t0": np.arange(8)}) == proto


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ({"t9": [0]}, "no channel group has the root 't9'"),
        ({"y": [0]}, "reach output `y`"),
        ({"t0": []}, "at least one"),
        ({"t0": [3, 1]}, "sorted"),
        ({"t0": [1, 1]}, "different"),
        ({"t0": [0, 8]}, "between 0 and 7"),
    ],
)
def test_removed_impossible_channels_are_refused(keep: dict[str, list[int]], words: str) -> None:
    proto, graph = prepared("chain")
    with pytest.raises(PlanError, match=words):
        remove_channels(proto, graph, {root: np.array(channels, np.int64) for root, channels in keep.items()})
