"""Ranges of stored tensors are those of the channels that are left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwc_onnx.database import LayerDatabase
from hwc_onnx.quantization.channel_values import MOST, ChannelValues
from hwc_onnx.rebuild import rebuild
from hwc_onnx.uniform import parse_spec, uniform
from tests import tiny_models
from tests.pruning.prepared import prepare

LOUD = 50.0


def with_a_loud_channel() -> onnx.ModelProto:
    """The first layer's first channel has next to no weight, so that it goes first, and a bias of 50."""
    model = tiny_models.chain()
    first = model.graph.node[0]
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == first.input[1]:
            values[0] *= 1e-3
        elif tensor.name == first.input[2]:
            values[0] = LOUD
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


@pytest.mark.parametrize("sequential", [False, True])
def test_a_range_does_not_cover_a_channel_that_is_gone(sequential: bool) -> None:
    made = prepare(with_a_loud_channel, images=64)
    plan = uniform(made.graph, parse_spec("w8a8,coarse=l1:0.5"))
    stitched = made.database.stitch(plan)
    if sequential:
        stitched = rebuild(made.proto, made.graph, plan, made.database, made.samples, threads=1)
    assert 0 not in stitched.keep[made.layer(0).key]
    tensor = made.layer(1).inputs[0]
    params = stitched.activations[tensor]
    assert float(params.scale) * 255 < 0.3 * LOUD
    everything = made.database.activation_params(tensor, 8)
    assert float(everything.scale) * 255 > 0.9 * LOUD  # as it would be without looking at channels


def test_nothing_changes_where_no_channel_is_gone_or_none_are_told_apart() -> None:
    made = prepare(with_a_loud_channel, images=64)
    tensor = made.layer(1).inputs[0]
    plan = uniform(made.graph, parse_spec("w8a8"))
    assert float(made.database.stitch(plan).activations[tensor].scale) == float(made.database.activation_params(tensor, 8).scale)
    blind = replace(made.database.calibration, channels={})
    cut = uniform(made.graph, parse_spec("w8a8,coarse=l1:0.5"))
    scale = LayerDatabase(made.proto, made.graph, blind).stitch(cut).activations[tensor].scale
    assert float(scale) * 255 > 0.9 * LOUD


def test_values_of_channels_are_those_that_were_seen() -> None:
    rng = np.random.default_rng(0)
    found = ChannelValues(1, 3, np.random.default_rng(1))
    batches = [rng.normal([[[0.0]], [[10.0]], [[-5.0]]], 1.0, (7, 3, 5, 40)).astype(np.float32) for _ in range(40)]
    for batch in batches:
        found.update(batch)
    whole = np.concatenate(batches)
    for kept in ([0], [1], [0, 2], [0, 1, 2]):
        histogram = found.histogram(np.array(kept))
        seen = whole[:, kept]
        assert (histogram.minimum, histogram.maximum) == (seen.min(), seen.max())
        assert histogram.mean == pytest.approx(seen.mean(), abs=0.2)
        assert histogram.variance == pytest.approx(seen.var(), rel=0.1)
        assert histogram.total <= (MOST + MOST // 8 + 2) * len(kept)
    assert found.histogram(np.array([1])).mean > 9.0  # a broken twin would mix the channels
