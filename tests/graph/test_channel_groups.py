from __future__ import annotations

import numpy as np
import onnx
import pytest

from hwc_onnx.graph.layer_graph import ChannelGroup, LayerGraph
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.tiny_models import Builder


def graph_of(model: onnx.ModelProto) -> LayerGraph:
    return parse(normalize(model))


def group_of(model: onnx.ModelProto, key: str) -> ChannelGroup:
    group = graph_of(model).group_of(key)
    assert group is not None
    return group


def indices(group: ChannelGroup) -> dict[tuple[str, int], list[int]]:
    return {(member.tensor, member.axis): list(member.index) for member in group.members}


@pytest.mark.parametrize("name", sorted(tiny_models.ALL))
def test_groups_each_weighted_layer_produces_exactly_one(name: str) -> None:
    graph = graph_of(tiny_models.ALL[name]())
    produced = [key for group in graph.channel_groups for key in group.producers]
    assert sorted(produced) == sorted(layer.key for layer in graph.layers if layer.weight)
    for group in graph.channel_groups:
        assert group.root in group.producers
        for member in group.members:
            assert len(member.index) == graph.tensors[member.tensor].shape[member.axis]


def test_group_chain_members_are_weights_bias_and_activations() -> None:
    group = group_of(tiny_models.chain(), "t0")
    eight = list(range(8))
    assert indices(group) == {("t0", 1): eight, ("c0", 0): eight, ("c1", 0): eight, ("t1", 1): eight, ("c2", 1): eight}
    assert (group.producers, group.consumers, group.locked_because) == (("t0",), ("t2",), None)


def test_group_residual_ties_all_blocks_of_a_stage() -> None:
    graph = graph_of(tiny_models.residual())
    first = graph.group_of("t0")
    assert first is not None and first.producers == ("t0", "t4") and first.consumers == ("t2", "t7", "t10")
    last = graph.group_of("t9")
    assert last is not None and last.producers == ("t9", "t10") and last.locked_because is None


def test_group_depthwise_is_producer_and_consumer() -> None:
    graph = graph_of(tiny_models.depthwise())
    wide = graph.group_of("t2")
    assert wide is not None and wide.producers == ("t2", "t4") and wide.consumers == ("t4", "t6")
    trunk = graph.group_of("t8")
    assert trunk is not None and trunk.root == "t0" and trunk.channels == 8
    runs = [channel for channel in range(8) for _ in range(2)]
    layer = graph.layer("t8")
    assert indices(trunk)[layer.weight or "", 0] == indices(trunk)["t9", 1] == runs


def test_group_concat_marks_positions_of_others() -> None:
    graph = graph_of(tiny_models.concat())
    left, right = graph.group_of("t0"), graph.group_of("t2")
    assert left is not None and right is not None and left is not right
    weight = graph.layer("t5").weight or ""
    assert indices(left)[weight, 1] == [0, 1, 2, 3, 4, 5, -1, -1, -1, -1]
    assert indices(right)[weight, 1] == [-1] * 6 + [0, 1, 2, 3]


def test_group_flatten_gives_runs() -> None:
    group = group_of(tiny_models.flatten_gemm(), "t0")
    assert indices(group)["t3", 1] == [channel for channel in range(6) for _ in range(16)]
    assert group.channels == 6 and group.locked_because is None


def test_group_flatten_channels_last_gives_cycles() -> None:
    b = Builder(["batch", 5, 8])
    flat = b.node("Reshape", b.linear("x", 8, 6), b.const([0, -1], np.int64))
    group = group_of(b.finish(b.gemm(flat, 30, 4)), "t0")
    assert indices(group)["t2", 1] == list(range(6)) * 5
    assert group.locked_because is None


def test_group_mlp_hidden_channels_are_free() -> None:
    group = group_of(tiny_models.mlp_block(), "t1")
    assert (group.channels, group.consumers, group.locked_because) == (16, ("t8",), None)


def test_group_gate_ties_the_gated_layer() -> None:
    group = group_of(tiny_models.squeeze_excite(), "t0")
    assert group.producers == ("t0", "t6") and group.consumers == ("t4", "t9")


def test_group_grouped_convolution_loses_whole_groups() -> None:
    group = group_of(tiny_models.grouped(), "t0")
    assert (group.channels, group.producers, group.consumers) == (2, ("t0", "t2"), ("t2", "t4"))
    assert indices(group)["t0", 1] == [0] * 4 + [1] * 4
    assert indices(group)["t2", 1] == indices(group)["c2", 0] == [0] * 6 + [1] * 6
    assert ("c2", 1) not in indices(group) and group.locked_because is None


def grouped_transposed() -> onnx.ModelProto:
    b = Builder(["batch", 3, 6, 6])
    large = b.node("ConvTranspose", b.conv("x", 3, 4), b.weight(4, 3, 2, 2), group=2)
    return tiny_models.head(b, large, 6)


@pytest.mark.parametrize(
    ("model", "key", "words"),
    [
        (tiny_models.chain, "y", "channels of `y` reach output `y`"),
        (grouped_transposed, "t0", "2 groups of ConvTranspose `convtranspose1`"),
        (tiny_models.mlp_block, "t8", "normalized together by LayerNormalization"),
        (tiny_models.attention, "t0", "split into several axes by Reshape"),
    ],
)
def test_group_locked_says_why(model: object, key: str, words: str) -> None:
    assert words in (group_of(model(), key).locked_because or "")  # type: ignore[operator]


def built(make: object) -> ChannelGroup:
    b = Builder(["batch", 3, 6, 6])
    first = b.conv("x", 3, 4)
    return group_of(make(b, first), "t0")  # type: ignore[operator]


def cut(b: Builder, x: str) -> onnx.ModelProto:
    one, two = b.node("Split", x, b.const([1, 3], np.int64), outs=2, axis=1)
    return tiny_models.head(b, b.node("Concat", b.conv(one, 1, 2), b.conv(two, 3, 2), axis=1), 4)


def partly(b: Builder, x: str) -> onnx.ModelProto:
    both = b.node("Concat", x, b.conv("x", 3, 2), axis=1)
    return tiny_models.head(b, b.node("Add", both, b.conv("x", 3, 6)), 6)


def unknown(b: Builder, x: str) -> onnx.ModelProto:
    return tiny_models.head(b, b.conv(b.node("DepthToSpace", x, blocksize=2), 1, 4), 4)


def compared(b: Builder, x: str) -> onnx.ModelProto:
    return tiny_models.head(b, b.node("Softmax", x, axis=1), 4)


def averaged(b: Builder, x: str) -> onnx.ModelProto:
    return tiny_models.head(b, b.conv(b.node("ReduceMean", x, axes=[1]), 1, 4), 4)


def with_input(b: Builder, x: str) -> onnx.ModelProto:
    return tiny_models.head(b, b.conv(b.node("Add", b.conv(x, 4, 3), "x"), 3, 4), 4)


def mixed_with_batch(b: Builder, x: str) -> onnx.ModelProto:
    flat = b.node("Reshape", x, b.const([-1, 36], np.int64))
    return b.finish(b.gemm(flat, 36, 5))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (cut, "cut into parts by Split"),
        (partly, "carried only in part by"),
        (unknown, "DepthToSpace `depthtospace1`, through which channels cannot be followed"),
        (compared, "compared with each other by Softmax"),
        (averaged, "averaged or summed by ReduceMean"),
        (mixed_with_batch, "Reshape"),
    ],
)
def test_group_reaching_what_cannot_be_followed_is_locked(make: object, words: str) -> None:
    assert words in (built(make).locked_because or "")


def test_group_tied_to_the_input_is_locked() -> None:
    b = Builder(["batch", 3, 6, 6])
    model = with_input(b, b.conv("x", 3, 4))
    assert "belong to input `x`" in (group_of(model, "t1").locked_because or "")


def test_group_two_layers_with_one_weight_tensor_lose_the_same_channels() -> None:
    b = Builder(["batch", 3, 6, 6])
    weight = b.weight(4, 3, 3, 3)
    left, right = (b.node("Conv", x, weight, pads=[1, 1, 1, 1]) for x in ("x", b.node("Tanh", "x")))
    model = tiny_models.head(b, b.node("Concat", left, right, axis=1), 8)
    group = parse(model).group_of(left)
    assert group is not None and set(group.producers) == {left, right}
    assert len(graph_of(model).channel_groups) == 3  # normalizing gives each its own copy
