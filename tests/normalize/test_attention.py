"""Attention written out, against ONNX Runtime's own Attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize import heads
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.rewrite.mask_channels import mask_channels
from hwc_onnx.rewrite.remove_channels import remove_channels
from tests import tiny_models
from tests.tiny_models import Builder

N, H, S, T, D, E, P = 2, 4, 5, 6, 8, 10, 3
ROLES = ("q", "k", "v", "mask", "past_k", "past_v", "filled")
RNG = np.random.default_rng(0)

Arrays = Mapping[str, NDArray[Any]]


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def booleans(*shape: int, first: bool = True) -> NDArray[np.bool_]:
    """Each row has a key; with `first`, so does each row under a causal mask."""
    values: NDArray[np.bool_] = RNG.random(shape) < 0.5
    values[..., 0] = first
    return values


PLAIN = {"q": normal(N, H, S, D), "k": normal(N, H, T, D), "v": normal(N, H, T, E)}
FLAT = {"q": normal(N, S, H * D), "k": normal(N, T, 2 * D), "v": normal(N, T, 2 * E)}
SHARED = {"q": PLAIN["q"], "k": PLAIN["k"][:, :2], "v": PLAIN["v"][:, :2]}
PAST = {"past_k": normal(N, H, P, D), "past_v": normal(N, H, P, E)}
NO_KEY = np.where(np.arange(S)[:, None] == 1, False, np.ones((S, T), bool))
OF_TWO = {"q_num_heads": H, "kv_num_heads": 2}


def model_of(arrays: Arrays, opset: int, results: int, constants: tuple[str, ...] = (), **facts: Any) -> onnx.ModelProto:
    """One Attention whose operands are inputs, except those named in `constants`; `results` is how many are outputs."""
    names = [role if role in arrays else "" for role in ROLES]
    while not names[-1]:
        names.pop()
    made = ["y", "present_k", "present_v", "scores"][:results]
    if results == 5:
        made = ["y", "", "", "scores"]
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in arrays.items()}
    inputs = [
        helper.make_tensor_value_info(name, kinds[name], ["batch" if array.shape[0] == N else array.shape[0], *array.shape[1:]])
        for name, array in arrays.items()
        if name not in constants
    ]
    graph = helper.make_graph(
        [helper.make_node("Attention", names, made, **facts)],
        "attention",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made if name],
        [numpy_helper.from_array(arrays[name], name) for name in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)


def run(model: onnx.ModelProto, arrays: Arrays) -> list[NDArray[Any]]:
    declared = {value.name for value in model.graph.input}
    found: list[NDArray[Any]] = tiny_models.run(model, {name: array for name, array in arrays.items() if name in declared})
    return found


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


CASES: dict[str, tuple[dict[str, Any], int, tuple[str, ...], dict[str, Any]]] = {
    "plain": (PLAIN, 1, (), {}),
    "scale": (PLAIN, 1, (), {"scale": 0.3}),
    "scale of one": (PLAIN, 1, (), {"scale": 1.0}),
    "softcap": (PLAIN, 1, (), {"softcap": 0.5}),
    "causal": (PLAIN, 1, (), {"is_causal": 1}),
    "grouped": (SHARED, 1, (), {}),
    "one head for all": ({**SHARED, "k": PLAIN["k"][:, :1], "v": PLAIN["v"][:, :1]}, 1, (), {}),
    "flat": (FLAT, 1, (), OF_TWO),
    "flat, causal": (FLAT, 1, (), {**OF_TWO, "is_causal": 1}),
    "flat, present": (FLAT, 3, (), OF_TWO),
    "flat, past": ({**FLAT, "past_k": PAST["past_k"][:, :2], "past_v": PAST["past_v"][:, :2]}, 4, (), OF_TWO),
    "past": ({**PLAIN, **PAST}, 3, (), {}),
    "past, causal": ({**PLAIN, **PAST}, 3, (), {"is_causal": 1}),
    "past, mask": ({**PLAIN, **PAST, "mask": normal(S, T + P)}, 3, (), {}),
    "boolean mask": ({**PLAIN, "mask": booleans(S, T)}, 1, (), {}),
    "boolean mask of a batch": ({**PLAIN, "mask": booleans(N, 1, S, T)}, 1, (), {}),
    "boolean mask, no key": ({**PLAIN, "mask": NO_KEY}, 1, (), {}),
    "boolean mask, causal, no key": ({**PLAIN, "mask": booleans(S, T, first=False)}, 1, (), {"is_causal": 1}),
    "float mask": ({**PLAIN, "mask": normal(S, T)}, 1, (), {}),
    "float mask of heads": ({**PLAIN, "mask": normal(H, S, T)}, 1, (), {}),
    "float mask of all": ({**PLAIN, "mask": normal(N, H, S, T)}, 1, (), {}),
    "float mask, no key": ({**PLAIN, "mask": np.where(NO_KEY, 0, -np.inf).astype(np.float32)}, 1, (), {}),
    "float mask, causal": ({**PLAIN, "mask": normal(1, S, T)}, 1, (), {"is_causal": 1, "softcap": 2.0}),
    "constant boolean mask": ({**PLAIN, "mask": booleans(S, T)}, 1, ("mask",), {}),
    "constant boolean mask, causal": ({**PLAIN, "mask": booleans(S, T)}, 1, ("mask",), {"is_causal": 1}),
    "constant float mask": ({**PLAIN, "mask": normal(1, H, S, T)}, 1, ("mask",), {}),
    "constant float mask, causal": ({**PLAIN, "mask": normal(S, T)}, 1, ("mask",), {"is_causal": 1}),
    "scores": (PLAIN, 5, (), {}),
    "scores capped": ({**PLAIN, "mask": normal(S, T)}, 5, (), {"qk_matmul_output_mode": 1, "softcap": 0.5}),
    "scores with mask": ({**PLAIN, "mask": normal(S, T)}, 5, (), {"qk_matmul_output_mode": 2, "softcap": 0.5}),
    "probabilities": ({**PLAIN, "mask": NO_KEY}, 5, (), {"qk_matmul_output_mode": 3}),
    "double softmax": (PLAIN, 1, (), {"softmax_precision": TensorProto.DOUBLE}),
}
PADDED = {
    "padding": ({**PLAIN, "filled": np.array([3, 6], np.int64)}, 1, (), {}),
    "padding, causal": ({**PLAIN, "filled": np.array([5, 6], np.int64)}, 1, (), {"is_causal": 1}),
    "padding, mask": ({**PLAIN, "filled": np.array([3, 6], np.int64), "mask": normal(S, T)}, 1, (), {}),
}


@pytest.mark.parametrize(
    ("name", "opset"),
    [*((name, opset) for name in CASES for opset in (23, 24)), *((name, 24) for name in PADDED)],
)
def test_attention_written_out_computes_what_the_operator_does(name: str, opset: int) -> None:
    arrays, results, constants, facts = (CASES | PADDED)[name]
    model = model_of(arrays, opset, results, constants, **facts)
    found = normalize(model)
    assert "Attention" not in operators(found) and "Softmax" in operators(found)
    for expected, values in zip(run(model, arrays), run(found, arrays), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
    assert normalize(found).SerializeToString(deterministic=True) == found.SerializeToString(deterministic=True)


STAYS: dict[str, tuple[dict[str, Any], int, tuple[str, ...], dict[str, Any]]] = {
    "scores before softcap": (PLAIN, 5, (), {"softcap": 0.5}),
    "scores with a boolean mask": ({**PLAIN, "mask": NO_KEY}, 5, (), {"qk_matmul_output_mode": 2}),
    "scores with a causal mask": (PLAIN, 5, (), {"qk_matmul_output_mode": 2, "is_causal": 1}),
    "constant mask that hides all keys": ({**PLAIN, "mask": NO_KEY}, 1, ("mask",), {}),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_cannot_be_written_out_stays(name: str) -> None:
    arrays, results, constants, facts = STAYS[name]
    assert operators(normalize(model_of(arrays, 23, results, constants, **facts))) == {"Attention"}


def test_wrong_heads_are_noticed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Heads that lie inside each feature instead of the other way round: the rewrite is left out."""
    monkeypatch.setattr(heads, "QUERY_ORDER", (0, 3, 1, 2))
    monkeypatch.setattr(heads.split_heads, "__defaults__", ((0, 3, 1, 2),))
    arrays, results, constants, facts = CASES["flat, causal"]
    square = {**arrays, "q": normal(N, S, H * H), "k": normal(N, T, 2 * H)}
    assert "Attention" in operators(normalize(model_of(square, 23, results, constants, **facts)))
    assert "left out" in caplog.text and "Attention in plain operators" in caplog.text


def encoder(width: int, count: int, shared: int, flat: bool, causal: int = 0) -> onnx.ModelProto:
    """A layer of a transformer around scaled_dot_product_attention: as torch exports it at opset 23, or with 3-D operands."""
    b = Builder(["batch", T, width], opset=23)
    size = width // count
    parts = [b.linear("x", width, size * number) for number in (count, shared, shared)]
    if flat:
        y = b.node("Attention", *parts, q_num_heads=count, kv_num_heads=shared, is_causal=causal)
    else:
        parts = [
            b.node("Transpose", b.node("Reshape", part, b.const([0, T, -1, size], np.int64)), perm=[0, 2, 1, 3])
            for part in parts
        ]
        y = b.node("Attention", *parts, is_causal=causal, scale=size**-0.5)
        y = b.node("Reshape", b.node("Transpose", y, perm=[0, 2, 1, 3]), b.const([0, T, -1], np.int64))
    y = b.node("Add", b.linear(y, width, width), "x")
    y = b.node("LayerNormalization", y, b.vector(width), b.vector(width), axis=-1)
    return b.finish(b.node("Add", b.linear(b.node("Relu", b.linear(y, width, 32)), 32, width), y))


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("count", "shared"), [(4, 4), (4, 2), (6, 1)])
def test_heads_go_as_a_whole_with_the_keys_that_serve_them(count: int, shared: int, flat: bool, causal: int) -> None:
    proto = normalize(encoder(24, count, shared, flat, causal))
    graph = parse(proto)
    assert not graph.unmodelled
    size, served = 24 // count, count // shared
    group = graph.group_of("t0")
    assert group is not None and group.locked_because is None and len(group.producers) >= 2
    if shared > 1:
        assert group.channels == shared and len(group.producers) == 3
        members = {(member.tensor, member.axis): list(member.index) for member in group.members}
        assert members["t0", 2] == np.repeat(np.arange(shared), served * size).tolist()
    keep = {
        found.root: np.arange(found.channels)[::2] for found in graph.channel_groups if found.locked_because is None
    }
    removed, masked = remove_channels(proto, graph, keep), mask_channels(proto, graph, keep)
    feeds = tiny_models.feeds(proto)
    expected = tiny_models.run(masked, feeds)[0]
    np.testing.assert_allclose(tiny_models.run(removed, feeds)[0], expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(tiny_models.run(proto, feeds)[0], expected, rtol=1e-2)
