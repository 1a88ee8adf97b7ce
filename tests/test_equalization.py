"""Equalization: the same function, channels that use their quantizer alike, and masks of the weights as they were given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwc_onnx.accuracy.types import Samples
from hwc_onnx.equalization import equalize
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.recovery.scale_domains import scale_domains
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import Opened, calibrate
from tests import tiny_models
from tests.tiny_models import Builder, head


def uneven(kind: str = "chain", spread: float = 30.0) -> Callable[[], onnx.ModelProto]:
    """Layers whose channels differ in size by up to `spread` and whose readers make up for it."""

    def make() -> onnx.ModelProto:
        b = Builder(["batch", 3, 8, 8])
        size = np.geomspace(1.0, spread, 8)
        b.rng.shuffle(size)

        def pair(x: str) -> str:
            made = b.conv(x, 3, 8, out=None)
            first = b.nodes[-1]
            weight, bias = (next(c for c in b.constants if c.name == name) for name in first.input[1:3])
            for tensor in (weight, bias):
                values = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(values * size.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1)), tensor.name))
            return made

        def read(x: str, outputs: int) -> str:
            made = b.conv(x, 8, outputs)
            weight = next(c for c in b.constants if c.name == b.nodes[-1].input[1])
            values = numpy_helper.to_array(weight) / size.astype(np.float32).reshape(1, -1, 1, 1)
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), weight.name))
            return made

        trunk = pair("x")
        if kind == "chain":
            return head(b, b.node("Relu", read(b.node("Relu", trunk), 6)), 6)
        if kind == "clip far away":
            return head(b, read(b.node("Clip", trunk, b.const(0.0), b.const(1e4)), 6), 6)
        if kind == "clip that cuts":
            return head(b, read(b.node("Clip", trunk, b.const(0.0), b.const(6.0)), 6), 6)
        if kind == "sum":
            return head(b, read(b.node("Add", trunk, pair("x")), 6), 6)
        if kind == "sigmoid":
            return head(b, read(b.node("Sigmoid", trunk), 6), 6)
        assert kind == "pooled"
        pooled = b.node("MaxPool", b.node("LeakyRelu", trunk, alpha=0.1), kernel_shape=[2, 2], strides=[2, 2])
        return head(b, read(b.node("Pad", pooled, b.const([0, 0, 1, 0, 0, 0, 0, 1], np.int64)), 6), 6)

    return make


def opened(make: Callable[[], onnx.ModelProto]) -> tuple[onnx.ModelProto, Samples]:
    proto = normalize(make())
    return proto, Samples(tiny_models.feeds(proto, 32, seed=1), None)


def difference(first: onnx.ModelProto, second: onnx.ModelProto, seed: int = 9) -> float:
    values = tiny_models.feeds(first, 8, seed=seed)
    (a,), (b,) = tiny_models.run(first, values), tiny_models.run(second, values)
    return float(np.abs(a - b).max() / np.abs(a).max())


@pytest.mark.parametrize("kind", ["chain", "clip far away", "sum", "pooled"])
def test_channels_are_scaled_and_the_function_stays(kind: str) -> None:
    proto, samples = opened(uneven(kind))
    found = equalize(proto, parse(proto), samples, threads=1)
    assert found.domains
    assert difference(proto, found.proto) < 1e-5


@pytest.mark.parametrize("kind", ["clip that cuts", "sigmoid"])
def test_what_is_not_homogeneous_is_left(kind: str) -> None:
    proto, samples = opened(uneven(kind))
    taken = equalize(proto, parse(proto), samples, threads=1).factors
    first = next(node for node in proto.graph.node if node.op_type == "Conv")
    assert (first.input[1], 0) not in taken


@pytest.mark.parametrize("model", sorted(tiny_models.ALL))
def test_every_tiny_model_computes_the_same(model: str) -> None:
    proto, samples = opened(tiny_models.ALL[model])
    assert difference(proto, equalize(proto, parse(proto), samples, threads=1).proto) < 1e-5


def test_factors_on_one_side_only_are_noticed() -> None:
    """Broken twin: the readers do not make up for the factors."""
    proto, samples = opened(uneven())
    graph = parse(proto)
    found = equalize(proto, graph, samples, threads=1)
    original = {tensor.name: tensor for tensor in proto.graph.initializer}
    (domain,) = [d for d in scale_domains(graph, {n: numpy_helper.to_array(t) for n, t in original.items()}) if d.readers][:1]
    readers = {place.tensor for place in domain.constants if place.power < 0}
    for tensor in found.proto.graph.initializer:
        if tensor.name in readers:
            tensor.CopyFrom(original[tensor.name])
    assert difference(proto, found.proto) > 1e-2


def test_eight_bits_lose_far_less_where_channels_were_uneven() -> None:
    proto, samples = opened(uneven(spread=300.0))
    model = Opened(None, proto, parse(proto))  # type: ignore[arg-type]
    plan = uniform(model.graph, parse_spec("w8a8"))
    errors = [
        difference(proto, calibrate(model, samples, seed=0, repairs=repairs).candidate(plan).proto)
        for repairs in ((), ("equalize",))
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("spec", "least"),
    [("w16a16,fine=magnitude:0.5", 0.99), ("w16a16,fine=wanda:0.5", 0.99), ("w16a16,fine=obs:0.5", 0.65)],
)
def test_masks_are_those_of_the_weights_as_given(spec: str, least: float) -> None:
    """OBS has a ridge, which is relative to the mean of the scaled inputs' powers; a few weights change places, and zeros move
    between rows by errors of the scaled outputs."""
    proto, samples = opened(uneven())
    model = Opened(None, proto, parse(proto))  # type: ignore[arg-type]
    plan = uniform(model.graph, parse_spec(spec))
    plain, equal = (calibrate(model, samples, seed=0, repairs=repairs) for repairs in ((), ("equalize",)))
    assert equal.database.taken
    first, second = (found.database.stitch(plan).weights for found in (plain, equal))
    for key, weight in first.items():
        same = (np.asarray(weight.codes) != 0) == (np.asarray(second[key].codes) != 0)
        assert same.mean() > least, key


def test_channels_that_go_are_those_of_the_weights_as_given() -> None:
    proto, samples = opened(uneven())
    model = Opened(None, proto, parse(proto))  # type: ignore[arg-type]
    plain, equal = (calibrate(model, samples, seed=0, repairs=repairs).database for repairs in ((), ("equalize",)))
    for group in model.graph.channel_groups:
        for name in ("l1", "gram"):
            np.testing.assert_array_equal(plain.keep(group.root, name, 0.5), equal.keep(group.root, name, 0.5))


def test_scores_of_the_scaled_weights_would_choose_others() -> None:
    """Broken twin of the two tests above."""
    proto, samples = opened(uneven())
    model = Opened(None, proto, parse(proto))  # type: ignore[arg-type]
    equal = calibrate(model, samples, seed=0, repairs=("equalize",)).database
    plain = calibrate(model, samples, seed=0, repairs=()).database
    equal.views = {key: replace(view, taken=None) for key, view in equal.views.items()}
    roots = [group.root for group in model.graph.channel_groups if group.locked_because is None]
    assert any(not np.array_equal(plain.keep(root, "l1", 0.5), equal.keep(root, "l1", 0.5)) for root in roots)
