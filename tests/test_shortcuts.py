"""Shortcuts: which are found, in which order layers are fitted, and that a layer makes up for what its shortcut lacks."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import onnx
import pytest

from hwc_onnx.accuracy.tensors import run_tensors
from hwc_onnx.graph.layer_graph import Layer, Node
from hwc_onnx.graph.shortcut import Shortcuts, clip_bounds
from hwc_onnx.rebuild import rebuild
from hwc_onnx.uniform import parse_spec, uniform
from tests import tiny_models
from tests.pruning.prepared import Prepared, prepare
from tests.test_rebuild import compressed


def two_branches(seed: int = 0) -> onnx.ModelProto:
    """A block whose shortcut is a convolution of few inputs, then one whose shortcut is the stream itself."""
    b = tiny_models.Builder(["N", 3, 8, 8], seed)
    x = b.node("Relu", b.conv("x", 3, 6))
    wide = b.conv(x, 6, 6)
    narrow = b.conv(x, 6, 6, kernel=1)
    y = b.node("Relu", b.node("Add", wide, narrow))
    inner = b.conv(b.node("Relu", b.conv(y, 6, 6)), 6, 6)
    return tiny_models.head(b, b.node("Relu", b.node("Add", inner, y)), 6)


@pytest.fixture(scope="module")
def made() -> Prepared:
    return prepare(two_branches, images=64)


def taps(layer: Layer) -> tuple[int, ...]:
    return layer.weight_shape[2:]


def test_of_two_branches_the_one_with_fewer_inputs_comes_first(made: Prepared) -> None:
    layers = [layer for layer in made.graph.layers if layer.weight is not None]
    order = Shortcuts(made.graph).ordered(layers)
    assert sorted(layer.key for layer in order) == sorted(layer.key for layer in layers)
    assert [taps(layer) for layer in layers[:3]] == [(3, 3), (3, 3), (1, 1)]
    assert [taps(layer) for layer in order[:3]] == [(3, 3), (1, 1), (3, 3)]


def test_a_shortcut_counts_once_it_is_settled(made: Prepared) -> None:
    shortcuts = Shortcuts(made.graph)
    first, wide, narrow, before, inner, *_ = made.graph.layers
    assert shortcuts.of(first, []) is None and shortcuts.of(before, []) is None
    assert shortcuts.of(wide, {wide.key, narrow.key}) is None
    found = shortcuts.of(wide, {wide.key})
    assert found is not None and found.read_in(made.proto) == narrow.key
    stream = shortcuts.of(inner, {inner.key})
    assert stream is not None and stream.key != found.key


def test_an_output_that_others_read_too_has_no_shortcut() -> None:
    b = tiny_models.Builder(["N", 3, 8, 8])
    x = b.node("Relu", b.conv("x", 3, 4))
    y = b.conv(x, 4, 4)
    again = b.node("Add", b.node("Add", x, y), y)
    made = prepare(lambda: tiny_models.head(b, again, 4))
    assert Shortcuts(made.graph).of(made.graph.layers[1], []) is None


@pytest.mark.parametrize(
    ("inputs", "attributes", "expected"),
    [
        (("x", "zero", "six"), {}, (0.0, 6.0)),
        (("x", "", "six"), {}, (-np.inf, 6.0)),
        (("x",), {"min": -1.0}, (-1.0, np.inf)),
        (("x", "computed", "six"), {}, None),
        (("x", "many"), {}, None),
    ],
)
def test_bounds_of_a_clip(inputs: tuple[str, ...], attributes: dict[str, float], expected: tuple[float, float] | None) -> None:
    constants = {"zero": 0.0, "six": 6.0, "many": [0.0, 1.0]}
    graph = onnx.helper.make_graph(
        [], "g", [], [], [onnx.numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()]
    )
    node = Node("y", "y", "Clip", "", inputs, ("y",), attributes)
    assert clip_bounds(onnx.helper.make_model(graph), node) == expected


def test_the_reader_of_a_sum_is_that_of_the_layer(made: Prepared) -> None:
    shortcuts = Shortcuts(made.graph)
    inner = made.graph.layers[4]
    alone, both = shortcuts.reader(inner, None), shortcuts.reader(inner, shortcuts.of(inner, {inner.key}))
    assert alone is not None and both is not None
    assert (alone.op_type, both.op_type) == ("Add", "Relu")


def error_of_the_stream(made: Prepared, spec: str, used: bool) -> float:
    """Of the last sum, relative to its variance, with and without shortcuts in the targets."""
    plan = uniform(made.graph, parse_spec(spec))
    nothing = patch.object(Shortcuts, "of", lambda self, layer, unsettled: None)
    if used:
        after = rebuild(made.proto, made.graph, plan, made.database, made.samples, threads=1)
    else:
        with nothing:
            after = rebuild(made.proto, made.graph, plan, made.database, made.samples, threads=1)
    key = [node.key for node in made.graph.nodes if node.op_type == "Add"][-1]
    (before,), (found,) = (
        [array for _, _, array in run_tensors(model, made.samples, [key], {}, 1, 64)]
        for model in (made.proto, compressed(made, after))
    )
    return float((found - before).astype(np.float64).var() / before.var())


@pytest.mark.parametrize("spec", ["w3a8", "w8a8,fine=obs:0.5"])
def test_a_layer_makes_up_for_what_its_shortcut_lacks(made: Prepared, spec: str) -> None:
    assert error_of_the_stream(made, spec, used=True) < 0.97 * error_of_the_stream(made, spec, used=False)
