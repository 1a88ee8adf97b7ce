"""A layer's outputs are its rows times its patches: the patches, the layout and the moments, against ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hwc_onnx.accuracy.collector import collect
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.graph.layer_graph import Layer, LayerGraph
from hwc_onnx.graph.model_view import ModelView
from hwc_onnx.recovery.layout import layout_of
from hwc_onnx.recovery.patches import patches_of
from tests import tiny_models
from tests.recovery.layers import KINDS, one_layer

ALL_POSITIONS = 10_000


def attributes(graph: LayerGraph, layer: Layer) -> dict[str, object]:
    return dict(next(node for node in graph.nodes if node.key == layer.key).attributes)


def outputs_of(layer: Layer, y: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model's output as [outputs, n], positions in the order of the patches."""
    if layer.op_type in ("Conv", "ConvTranspose"):
        return np.moveaxis(y, 1, 0).reshape(y.shape[1], -1)
    left = layer.op_type == "MatMul" and layer.output_axis == len(layer.weight_shape) - 2
    return np.moveaxis(y, -2 if left else -1, 0).reshape(y.shape[-2 if left else -1], -1)


def computed(kind: str, wrong: Layer | None = None) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Rows times patches, and what ONNX Runtime computes; `wrong` gathers the patches of another layer."""
    proto, graph, layer = one_layer(kind)
    view, feeds = ModelView(proto), tiny_models.feeds(proto)
    x = patches_of(wrong or layer, attributes(graph, layer), feeds["x"], ALL_POSITIONS, np.random.default_rng(0))
    layout = layout_of(layer)
    rows = layout.to_rows(view.array(layer.weight))
    found = np.einsum("grd,gnd->grn", rows, x).reshape(layout.outputs, -1)
    if layer.bias is not None:
        found += view.array(layer.bias).reshape(-1, 1)
    return found, outputs_of(layer, tiny_models.run(proto, feeds)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_times_patches_are_the_outputs_of_the_layer(kind: str) -> None:
    found, expected = computed(kind)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_patches_with_exchanged_axes_or_turned_kernel_are_noticed() -> None:
    """Broken twins."""
    layer = one_layer("conv strided, dilated, uneven pads")[2]
    dims = layer.loop_dims
    swapped = replace(layer, loop_dims=replace(dims, pads=(1, 0, 1, 2)))
    found, expected = computed("conv strided, dilated, uneven pads", swapped)
    assert found.shape != expected.shape or not np.allclose(found, expected, atol=1e-2)
    transposed = replace(
        one_layer("transposed")[2], loop_dims=replace(one_layer("transposed")[2].loop_dims, pads=(0, 1, 1, 0))
    )
    found, expected = computed("transposed", transposed)
    assert found.shape != expected.shape or not np.allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_layout_goes_there_and_back(kind: str) -> None:
    layer = one_layer(kind)[2]
    weight = np.random.default_rng(0).normal(size=layer.weight_shape)
    layout = layout_of(layer)
    np.testing.assert_array_equal(layout.from_rows(layout.to_rows(weight)), weight)
    if layout.groups == 1:
        keep = np.arange(0, layout.channels, 2)
        fewer = replace(layout, channels=len(keep))
        cut = fewer.from_rows(layout.to_rows(weight)[:, :, layout.columns(keep)])
        np.testing.assert_array_equal(cut, np.take(weight, keep, axis=layer.input_axis))


@pytest.mark.parametrize("kind", ["conv", "conv grouped", "transposed grouped", "matmul", "matmul from the left"])
def test_sampled_patches_are_some_of_all_of_them_and_repeat_with_the_seed(kind: str) -> None:
    proto, graph, layer = one_layer(kind)
    x, facts = tiny_models.feeds(proto)["x"], attributes(graph, layer)
    everything = patches_of(layer, facts, x, ALL_POSITIONS, np.random.default_rng(0))
    some = patches_of(layer, facts, x, 3, np.random.default_rng(5))
    np.testing.assert_array_equal(some, patches_of(layer, facts, x, 3, np.random.default_rng(5)))
    assert some.shape[1] == 3 * len(x)
    for g in range(some.shape[0]):
        known = {row.tobytes() for row in everything[g]}
        assert all(row.tobytes() in known for row in some[g])


@pytest.mark.parametrize("kind", KINDS)
def test_collected_moments_are_the_sums_over_the_patches_of_fit_and_heldout_images(kind: str) -> None:
    proto, graph, layer = one_layer(kind)
    x = tiny_models.feeds(proto, batch=16)["x"]
    found = collect(
        proto,
        graph,
        Samples({"x": x}, None),
        threads=1,
        batch=5,
        gram_rows=ALL_POSITIONS * 16,
        rng=np.random.default_rng(0),
    ).layers[layer.key]
    for moments, images in ((found.fit, x[:12]), (found.heldout, x[12:])):
        patches = patches_of(layer, attributes(graph, layer), images, ALL_POSITIONS, np.random.default_rng(0))
        wide = patches.astype(np.float64)
        assert moments.rows == wide.shape[1]
        gram = sum(wide[:, n, :, None] * wide[:, n, None, :] for n in range(wide.shape[1]))
        np.testing.assert_allclose(moments.gram, gram, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(moments.total, wide.sum(axis=1), rtol=1e-4, atol=1e-3)
        covariance = np.stack([np.cov(g.T, bias=True) for g in wide])
        np.testing.assert_allclose(moments.second_moment(True), covariance, rtol=1e-3, atol=1e-4)


def test_collected_moments_of_an_unfinished_batch_are_noticed() -> None:
    """Broken twin: the last image is missing."""
    proto, graph, layer = one_layer("conv")
    x = tiny_models.feeds(proto, batch=16)["x"]
    whole, part = (
        collect(proto, graph, Samples({"x": images}, None), threads=1, rng=np.random.default_rng(0)).layers[layer.key]
        for images in (x, x[:15])
    )
    assert not np.allclose(whole.heldout.gram, part.heldout.gram, rtol=1e-2)
