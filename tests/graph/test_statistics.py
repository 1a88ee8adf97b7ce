"""Normalizations and softmaxes that are written out keep their statistics in 16 bits, as the operators themselves do."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from hwc_onnx import api
from hwc_onnx.graph import activation_groups as groups
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests.tiny_models import Builder

FORMS = ("squares", "centred", "softmax")


def network(form: str) -> onnx.ModelProto:
    """A linear layer with a large bias, a normalization over the last axis, another layer, the mean over positions."""
    b = Builder(["batch", 6, 16], 7)
    product = b.node("MatMul", "x", b.weight(16, 24))
    wide = b.node("Add", product, b.const(8.0 + b.rng.normal(0, 0.3, 24)))
    mean = b.node("ReduceMean", wide, out="mean", axes=[-1], keepdims=1)
    if form == "squares":
        square = b.node("ReduceMean", b.node("Mul", wide, wide), out="square", axes=[-1], keepdims=1)
        variance = b.node("Max", b.node("Sub", square, b.node("Mul", mean, mean), out="variance"), b.const(0.0))
        scale = b.node("Reciprocal", b.node("Sqrt", b.node("Add", variance, b.const(1e-6))), out="scale")
        made = b.node("Mul", b.node("Sub", wide, mean, out="from_mean"), b.node("Mul", scale, b.vector(24)), out="made")
    elif form == "centred":
        centred = b.node("Sub", wide, mean, out="from_mean")
        variance = b.node("ReduceMean", b.node("Pow", centred, b.const(2.0)), out="variance", axes=[-1], keepdims=1)
        made = b.node("Div", centred, b.node("Sqrt", b.node("Add", variance, b.const(1e-6))), out="made")
    elif form == "softmax":
        top = b.node("ReduceMax", wide, out="top", axes=[-1], keepdims=1)
        power = b.node("Exp", b.node("Sub", wide, top, out="below"), out="power")
        made = b.node("Div", power, b.node("ReduceSum", power, b.const([-1], np.int64), out="total", keepdims=1), out="made")
    else:
        made = b.node("Mul", b.node("Sub", wide, mean, out="from_mean"), mean, out="made")
    last = b.node("MatMul", made, b.weight(24, 10))
    return b.finish(b.node("ReduceMean", last, axes=[1], keepdims=0), ["batch", 10])


def narrow(form: str) -> set[str]:
    """Tensors of the network that are stored at a width of their own."""
    graph = parse(normalize(network(form)))
    return {name for group in graph.activation_groups for name in group.tensors}


@pytest.mark.parametrize("form", FORMS)
def test_what_lies_inside_has_no_width_of_its_own(form: str) -> None:
    found = narrow(form)
    assert {"x", "made"} <= found
    assert not found & {"mean", "square", "variance", "scale", "from_mean", "top", "below", "power", "total"}


def test_a_mean_without_a_root_has_one() -> None:
    assert "mean" in narrow("neither")


@pytest.mark.parametrize("form", ["squares", "centred"])
def test_accuracy_is_kept_at_8_bits_and_lost_without_the_rule(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(3).standard_normal((640, 6, 16)).astype(np.float32)

    def lost() -> float:
        plan = api.uniform_plan(network(form), "w8a8")
        found: Any = api.apply_plan(network(form), plan=plan, data={"x": x}, metric="agreement").evaluation
        return float(found.damage)

    kept = lost()
    monkeypatch.setattr(groups, "inside_statistics", lambda nodes, constants: frozenset())  # broken twin
    assert kept < 0.5 * lost()
