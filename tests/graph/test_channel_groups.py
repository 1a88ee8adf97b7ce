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


def test_group_of_few_large_groups_loses_the_same_places_in_each() -> None:
    graph = graph_of(tiny_models.grouped())
    read, made = graph.group_of("t0"), graph.group_of("t2")
    assert read is not None and made is not None and read is not made
    assert (read.channels, read.consumers, read.locked_because) == (4, ("t2",), None)
    assert indices(read)["t0", 1] == [0, 1, 2, 3] * 2 and indices(read)["c2", 1] == [0, 1, 2, 3]
    assert (made.channels, made.locked_because) == (6, None)
    assert indices(made)["t2", 1] == indices(made)["c2", 0] == list(range(6)) * 2


def test_group_of_many_small_groups_loses_whole_ones() -> None:
    b = Builder(["batch", 3, 6, 6])
    model = tiny_models.head(b, b.conv(b.conv("x", 3, 8), 8, 12, group=4), 12)
    group = group_of(model, "t0")
    assert (group.channels, group.producers, group.locked_because) == (4, ("t0", "t1"), None)
    assert indices(group)["t0", 1] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert indices(group)["t1", 1] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def grouped_transposed() -> onnx.ModelProto:
    b = Builder(["batch", 3, 6, 6])
    large = b.node("ConvTranspose", b.conv("x", 3, 4), b.weight(4, 3, 2, 2), group=2)
    return tiny_models.head(b, large, 6)


def test_group_grouped_transposed_convolution_loses_whole_groups() -> None:
    group = group_of(grouped_transposed(), "t0")
    assert (group.channels, group.producers, group.locked_because) == (2, ("t0", "t1"), None)
    assert indices(group)["c2", 0] == [0, 0, 1, 1] and indices(group)["t1", 1] == [0] * 3 + [1] * 3


def test_group_of_heads() -> None:
    """Queries, keys and values of a head go together; so does the part of the projection that reads it."""
    graph = graph_of(tiny_models.attention())
    group = graph.group_of("t0")
    assert group is not None and group.locked_because is None and group.channels == 2
    assert len(group.producers) == 3 and len(group.consumers) == 1
    assert indices(group)["t0", 2] == [0] * 4 + [1] * 4


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


def test_group_cut_by_a_split_has_a_part_for_each_result() -> None:
    group = built(cut)
    assert (group.parts, group.part_sizes, group.least_kept()) == ((0, 1, 1, 1), (1, 3), 2)
    assert group.locked_because is None and len(group.consumers) == 2


def test_group_partly_added_to_another_has_parts() -> None:
    group = built(partly)
    assert group.channels == 6 and group.part_sizes == (4, 2) and group.locked_because is None


def test_group_parts_keep_their_shares() -> None:
    group = ChannelGroup("a", 10, (), ("a",), (), None, (0,) * 6 + (1,) * 3 + (2,))
    assert group.kept_of_parts(10) == (6, 3, 1)
    assert group.kept_of_parts(5) == (3, 1, 1)
    assert group.kept_of_parts(3) == (1, 1, 1)
    for kept in range(3, 11):
        found = group.kept_of_parts(kept)
        assert sum(found) == kept and all(1 <= left <= size for left, size in zip(found, (6, 3, 1), strict=True))


def test_group_with_channels_of_the_input_keeps_those() -> None:
    b = Builder(["batch", 3, 6, 6])
    first = b.node("Concat", b.conv("x", 3, 5), "x", axis=1)
    model = tiny_models.head(b, b.conv(b.node("Add", first, b.conv(first, 8, 8)), 8, 4), 4)
    group = group_of(model, "t0")
    assert group.locked_because is None and group.channels == 8
    assert group.fixed == 3 and group.part_sizes == (5,) and group.least_kept() == 4
    assert group.kept_of_parts(6) == (3,)


def test_group_padded_with_zero_channels() -> None:
    b = Builder(["batch", 3, 6, 6])
    first = b.conv("x", 3, 4)
    wider = b.node("Pad", first, b.const([0, 1, 0, 0, 0, 2, 0, 0], np.int64))
    group = group_of(tiny_models.head(b, b.node("Add", wider, b.conv(first, 4, 7)), 7), "t0")
    assert group.locked_because is None and group.channels == 7 and group.part_sizes == (4, 3)
    assert indices(group)["t0", 1] == [0, 1, 2, 3] and indices(group)["t1", 1][1:5] == [0, 1, 2, 3]


def test_group_beside_a_token_that_is_repeated_for_each_image() -> None:
    """The batch is computed, the channels are not named: a token joined to features loses channels with them."""
    b = Builder(["batch", 5, 8])
    batch = b.node("Shape", "x", start=0, end=1)
    one = b.const([1], np.int64)
    token = b.node("Expand", b.weight(1, 1, 6), b.node("Concat", batch, one, one, axis=0))
    joined = b.node("Concat", token, b.linear("x", 8, 6), axis=1)
    graph = graph_of(b.finish(b.linear(joined, 6, 4)))
    assert [group.locked_because is None for group in graph.channel_groups] == [True, False]


def image_of_blocks(mode: str) -> onnx.ModelProto:
    b = Builder(["batch", 3, 6, 6])
    image = b.node("DepthToSpace", b.conv("x", 3, 8), blocksize=2, mode=mode)
    return tiny_models.head(b, b.conv(image, 2, 4), 4)


@pytest.mark.parametrize(("mode", "index"), [("DCR", [0, 1] * 4), ("CRD", [0] * 4 + [1] * 4)])
def test_group_of_blocks_that_become_pixels(mode: str, index: list[int]) -> None:
    group = group_of(image_of_blocks(mode), "t0")
    assert group.channels == 2 and indices(group)["t0", 1] == index and group.locked_because is None


def test_group_shuffled_channels_stay_single() -> None:
    b = Builder(["batch", 3, 6, 6])
    cut = b.node("Reshape", b.conv("x", 3, 6), b.const([0, 2, 3, 6, 6], np.int64))
    turned = b.node("Transpose", cut, perm=[0, 2, 1, 3, 4])
    shuffled = b.node("Reshape", turned, b.const([0, 6, 6, 6], np.int64))
    group = group_of(tiny_models.head(b, b.conv(shuffled, 6, 4), 4), "t0")
    assert group.channels == 6 and group.locked_because is None
    assert indices(group)["t3", 1] == [0, 3, 1, 4, 2, 5]


def test_group_two_grouped_layers_around_a_shuffle_lose_the_same_places() -> None:
    """Whole groups would tie everything together, so the second way is taken."""
    b = Builder(["batch", 3, 6, 6])
    first = b.conv(b.conv("x", 3, 8), 8, 8, group=2)
    cut = b.node("Reshape", first, b.const([0, 2, 4, 6, 6], np.int64))
    turned = b.node("Transpose", cut, perm=[0, 2, 1, 3, 4])
    shuffled = b.node("Reshape", turned, b.const([0, 8, 6, 6], np.int64))
    graph = graph_of(tiny_models.head(b, b.conv(shuffled, 8, 8, group=2), 8))
    free = [group.channels for group in graph.channel_groups if group.locked_because is None]
    assert min(free) >= 2 and len(free) >= 2


def own_domain(b: Builder, x: str) -> onnx.ModelProto:
    return tiny_models.head(b, b.conv(b.node("CumSum", x, b.const(1, np.int64)), 4, 4), 4)


def compared(b: Builder, x: str) -> onnx.ModelProto:
    return tiny_models.head(b, b.node("Softmax", x, axis=1), 4)


def stepped(b: Builder, x: str) -> onnx.ModelProto:
    bounds = [b.const([value], np.int64) for value in (0, 4, 1, 2)]
    return tiny_models.head(b, b.conv(b.node("Slice", x, *bounds), 2, 4), 4)


def with_input(b: Builder, x: str) -> onnx.ModelProto:
    return tiny_models.head(b, b.conv(b.node("Add", b.conv(x, 4, 3), "x"), 3, 4), 4)


def mixed_with_batch(b: Builder, x: str) -> onnx.ModelProto:
    flat = b.node("Reshape", x, b.const([-1, 36], np.int64))
    return b.finish(b.gemm(flat, 36, 5))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (own_domain, "CumSum `cumsum1`, through which channels cannot be followed"),
        (compared, "compared with each other by Softmax"),
        (stepped, "cut with a step by Slice"),
        (mixed_with_batch, "Reshape"),
    ],
)
def test_group_reaching_what_cannot_be_followed_is_locked(make: object, words: str) -> None:
    assert words in (built(make).locked_because or "")


def test_group_that_is_an_output_is_locked() -> None:
    assert "channels of `y` reach output `y`" in (group_of(tiny_models.chain(), "y").locked_because or "")


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


def test_a_reshape_that_does_not_fit_locks_what_it_touches() -> None:
    """A branch of an If for inputs of another size is read as well, though it never runs."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> m (float[1,4] x, bool small) => (float y) <int64[2] nine = {3, 3}>
        {
            h = Relu (x)
            y = If (small) <
                then_branch = t () => (a) { a = Identity (h) },
                else_branch = e () => (b) { b = Reshape (h, nine) }
            >
        }"""
    )
    graph = parse(model)
    assert [node.op_type for node in graph.nodes] == ["Relu", "If"]
