"""Queries against keys, values against the projection: the same function, and operands that use their quantizers alike."""

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
from hwc_onnx.recovery.attention_domains import attention_domains
from hwc_onnx.recovery.scale_domains import Domain
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import Opened, calibrate
from tests import tiny_models
from tests.tiny_models import Builder

LENGTH, WIDTH, HEADS = 5, 8, 2
DEPTH = WIDTH // HEADS


def uneven_linear(b: Builder, x: str, size: np.ndarray) -> str:
    """A layer whose output channels differ in size."""
    out = b.linear(x, WIDTH, len(size))
    for name in (b.nodes[-2].input[1], b.nodes[-1].input[1]):
        tensor = next(c for c in b.constants if c.name == name)
        tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * size).astype(np.float32), name))
    return out


def attention(kind: str, spread: float = 20.0) -> Callable[[], onnx.ModelProto]:
    """Self-attention with channels of keys and values that differ by up to `spread`."""

    def make() -> onnx.ModelProto:
        b = Builder(["batch", LENGTH, WIDTH])
        size = np.geomspace(1.0 / spread, 1.0, WIDTH)
        b.rng.shuffle(size)
        heads = b.const([0, LENGTH, HEADS, DEPTH], np.int64)
        if kind == "joint":
            both = uneven_linear(b, "x", np.concatenate([np.ones(WIDTH), size, size]))
            q, k, v = b.node("Split", both, b.const([WIDTH] * 3, np.int64), outs=3, axis=2)
        elif kind == "grouped":
            q = b.linear("x", WIDTH, WIDTH)
            k, v = (uneven_linear(b, "x", size[:DEPTH]) for _ in range(2))
        else:
            q, k, v = b.linear("x", WIDTH, WIDTH), *(uneven_linear(b, "x", size) for _ in range(2))
        if kind == "kept":
            k = b.node("Tanh", k)
        if kind == "values read twice":
            read = b.node("Softmax", v, axis=-1)
        if kind == "scaled":
            q = b.node("Mul", b.const(0.5), q)
        q = b.node("Transpose", b.node("Reshape", q, heads), perm=[0, 2, 1, 3])
        if kind == "grouped":
            one = b.const([0, LENGTH, 1, DEPTH], np.int64)
            k = b.node("Transpose", b.node("Reshape", k, one), perm=[0, 2, 3, 1])
            v = b.node("Transpose", b.node("Reshape", v, one), perm=[0, 2, 1, 3])
        else:
            k = b.node("Transpose", b.node("Reshape", k, heads), perm=[0, 2, 3, 1])
            v = b.node("Transpose", b.node("Reshape", v, heads), perm=[0, 2, 1, 3])
        scores = b.node("Softmax", b.node("Mul", b.node("MatMul", q, k), b.const(0.5)), axis=-1)
        mixed = b.node("Transpose", b.node("MatMul", scores, v), perm=[0, 2, 1, 3])
        joined = b.node("Reshape", mixed, b.const([0, LENGTH, WIDTH], np.int64))
        if kind == "values read twice":
            joined = b.node("Add", joined, read)
        return b.finish(b.linear(joined, WIDTH, 6), ["batch", LENGTH, 6])

    return make


def opened(kind: str, spread: float = 20.0) -> tuple[onnx.ModelProto, Samples]:
    proto = normalize(attention(kind, spread)())
    return proto, Samples(tiny_models.feeds(proto, 48, seed=1), None)


def domains_of(proto: onnx.ModelProto) -> dict[str, Domain]:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return {found.root.split()[-1]: found for found in attention_domains(parse(proto), constants)}


def difference(first: onnx.ModelProto, second: onnx.ModelProto) -> float:
    values = tiny_models.feeds(first, 8, seed=9)
    (a,), (b,) = tiny_models.run(first, values), tiny_models.run(second, values)
    return float(np.abs(a - b).max() / np.abs(a).max())


@pytest.mark.parametrize("kind", ["apart", "joint", "grouped", "scaled"])
def test_operands_are_scaled_and_the_function_stays(kind: str) -> None:
    proto, samples = opened(kind)
    found = domains_of(proto)
    assert set(found) == {"scores", "values"}
    after = equalize(proto, parse(proto), samples, kinds=("attention",), threads=1)
    assert after.domains == (1 if kind == "joint" else 2) and after.factors  # what is stored together has one range
    assert difference(proto, after.proto) < 1e-5


def test_random_factors_on_every_domain_leave_the_function() -> None:
    """Whatever the factors: the domains themselves are right, not only the factors that are chosen."""
    from hwc_onnx.equalization import _take_up, _with

    for kind in ("apart", "joint", "grouped", "scaled"):
        proto, _ = opened(kind)
        rng = np.random.default_rng(3)
        values = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer}
        chosen = [(d, rng.uniform(0.2, 5.0, d.channels)) for d in domains_of(proto).values()]
        floats = {name: array.copy() for name, array in values.items()}
        _take_up(floats, chosen)
        changed = {name: array for name, array in floats.items() if (array != values[name]).any()}
        assert changed and difference(proto, _with(proto, changed)) < 1e-5


def test_factors_on_one_side_only_are_noticed() -> None:
    """Broken twin: what the keys lose the queries do not gain."""
    from hwc_onnx.equalization import _take_up, _with

    proto, _ = opened("apart")
    domain = domains_of(proto)["scores"]
    half = replace(domain, constants=tuple(place for place in domain.constants if place.power > 0))
    values = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer}
    _take_up(values, [(half, np.random.default_rng(3).uniform(0.2, 5.0, domain.channels))])
    assert difference(proto, _with(proto, {place.tensor: values[place.tensor] for place in half.constants})) > 1e-2


def test_heads_that_share_keys_share_factors() -> None:
    proto, _ = opened("grouped")
    found = domains_of(proto)
    assert found["scores"].channels == DEPTH
    (query,) = [p for p in found["scores"].constants if p.power > 0 and len(p.index) == WIDTH][:1]
    assert query.index[:DEPTH].tolist() == query.index[DEPTH:].tolist()
    (column,) = [p for p in found["values"].constants if p.power < 0]
    assert column.index.tolist() == [*range(DEPTH), *range(DEPTH)]


def test_what_is_used_in_another_way_is_left() -> None:
    assert "scores" not in domains_of(opened("kept")[0])
    found = domains_of(opened("values read twice")[0])
    assert "scores" in found and "values" not in found


def test_narrow_operands_lose_far_less_where_channels_were_uneven() -> None:
    errors = {}
    for repairs in ((), ("attention",)):
        proto, samples = opened("apart", spread=100.0)
        model = Opened(None, proto, parse(proto))  # type: ignore[arg-type]
        calibrated = calibrate(model, samples, seed=0, repairs=repairs)
        errors[repairs] = difference(proto, calibrated.candidate(uniform(model.graph, parse_spec("w16a6"))).proto)
    assert errors["attention",] < 0.7 * errors[()]


def weighed_sum(b: Builder) -> str:
    """Values summed with one weight per position, a vector."""
    v = b.node("MatMul", "x", b.const(b.rng.normal(0, 0.4, (WIDTH, WIDTH))))
    a = b.node("Softmax", b.node("ReduceMean", b.node("Tanh", "x"), axes=[1], keepdims=0))
    return b.node("MatMul", b.node("Unsqueeze", b.node("MatMul", a, v), b.const([0], np.int64)), b.weight(WIDTH, 4))


def matrix_bias(b: Builder) -> str:
    """Attention over rank 2, biases of all positions."""
    q, k, v = (b.node("Gemm", "x", b.weight(WIDTH, WIDTH), b.const(b.rng.normal(0, 1, (LENGTH, WIDTH)))) for _ in range(3))
    scores = b.node("Softmax", b.node("MatMul", q, b.node("Transpose", k, perm=[1, 0])), axis=-1)
    return b.node("MatMul", b.node("MatMul", scores, v), b.weight(WIDTH, 4))


def sliced(b: Builder) -> str:
    """Steps without axes, and a factor of more axes than what it scales."""
    q, k, v = (b.node("Unsqueeze", b.linear("x", WIDTH, WIDTH), b.const([0], np.int64)) for _ in range(3))
    bounds = [b.const(values, np.int64) for values in ([0, 0, 0], [9, 9, 9], [1, 1, 2])]
    q, k = (b.node("Slice", x, bounds[0], bounds[1], "", bounds[2]) for x in (q, k))
    wide = b.node("Mul", q, b.const(np.full((1, 1, 1, 1), 0.5)))
    scores = b.node("Softmax", b.node("MatMul", wide, b.node("Transpose", k, perm=[0, 2, 1])), axis=-1)
    return b.node("Squeeze", b.node("MatMul", b.node("MatMul", scores, v), b.weight(WIDTH, 4)), b.const([0, 1], np.int64))


def added_heads(b: Builder) -> str:
    """What attention gives is added in a Gemm, not multiplied."""
    q, k, v = (b.node("MatMul", "x", b.const(b.rng.normal(0, 0.4, (WIDTH, WIDTH)))) for _ in range(3))
    scores = b.node("Softmax", b.node("MatMul", q, b.node("Transpose", k, perm=[1, 0])), axis=-1)
    return b.node("Gemm", "x", b.weight(WIDTH, WIDTH), b.node("MatMul", scores, v))


def in_a_sequence(b: Builder) -> str:
    """Tensors whose shape is not known."""
    h = b.node("Relu", b.linear("x", WIDTH, WIDTH))
    taken = b.node("SequenceAt", b.node("SequenceConstruct", h, h), b.const(0, np.int64))
    return b.linear(taken, WIDTH, 4)


@pytest.mark.parametrize("make", [weighed_sum, matrix_bias, sliced, added_heads, in_a_sequence])
def test_what_is_unusual_is_left_or_computes_the_same(make: Callable[[Builder], str]) -> None:
    b = Builder([LENGTH, WIDTH])
    proto = normalize(b.finish(make(b)))
    samples = Samples({"x": np.random.default_rng(0).standard_normal((LENGTH, WIDTH)).astype(np.float32)}, None)
    found = equalize(proto, parse(proto), samples, threads=1)
    (before,), (after,) = (tiny_models.run(model, samples.inputs) for model in (proto, found.proto))
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", sorted(tiny_models.ALL))
def test_every_tiny_model_computes_the_same(model: str) -> None:
    proto = normalize(tiny_models.ALL[model]())
    samples = Samples(tiny_models.feeds(proto, 32, seed=1), None)
    assert difference(proto, equalize(proto, parse(proto), samples, threads=1).proto) < 1e-5
