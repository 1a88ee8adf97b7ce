"""Operators of ONNX Runtime's own domain written out, against ONNX Runtime running them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.graph.loading import load_model
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize import contrib
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.rewrite.mask_channels import mask_channels
from hwc_onnx.rewrite.remove_channels import remove_channels
from tests import tiny_models
from tests.tiny_models import Builder

N, S, C, H = 2, 6, 16, 4
RNG = np.random.default_rng(0)


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


MASKS = {
    "raw": np.array([[1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 1, 1]], np.int32),
    "lengths": np.array([4, 6], np.int32),
    "of queries": (RNG.random((N, S, S)) < 0.6).astype(np.int32),
}
QKV = (normal(N, S, C), normal(C, 3 * C), normal(3 * C))
THREE = (normal(N, S, C), normal(N, S + 1, C), normal(N, S + 1, 2 * C))
IMAGE = (normal(N, 3, 5, 5), normal(6, 3, 3, 3), normal(6))
NORM = (normal(N, S, C), normal(N, S, C), normal(C), normal(C), normal(C))
TABLES = (normal(9, C), normal(S, C), normal(2, C), normal(C), normal(C))
IDS = RNG.integers(0, 2, (N, S)).astype(np.int32)

Case = tuple[str, tuple[NDArray[Any] | None, ...], tuple[int, ...], dict[str, Any]]
CASES: dict[str, Case] = {
    "gelu": ("Gelu", (NORM[0],), (0,), {}),
    "bias, gelu": ("BiasGelu", (NORM[0], NORM[2]), (0,), {}),
    "fast gelu": ("FastGelu", (NORM[0],), (0,), {}),
    "bias, fast gelu": ("FastGelu", (NORM[0], NORM[2]), (0,), {}),
    "quick gelu": ("QuickGelu", (NORM[0],), (0,), {"alpha": 1.5}),
    "skip, norm": ("SkipLayerNormalization", NORM[:4], (0, 1), {"epsilon": 0.1}),
    "skip, bias, norm": ("SkipLayerNormalization", NORM, (0, 1), {}),
    "skip, norm, no shift": ("SkipLayerNormalization", NORM[:3], (0, 1), {}),
    "skip, root mean square": ("SkipSimplifiedLayerNormalization", NORM[:4], (0, 1), {"epsilon": 0.1}),
    "product": ("FusedMatMul", (normal(3, 4, 5), normal(3, 6, 4)), (0, 1), {"transA": 1, "transB": 1, "alpha": 0.5}),
    "product with weights": ("FusedMatMul", (normal(3, 4), normal(6, 4)), (0,), {"transB": 1, "alpha": 0.5}),
    "gemm": ("FusedGemm", (normal(3, 4), normal(4, 6), normal(6)), (0,), {"activation": "LeakyRelu", "activation_alpha": 0.2}),
    "conv": ("FusedConv", IMAGE, (0,), {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    "conv, clip": ("FusedConv", IMAGE, (0,), {"activation": "Clip", "activation_params": [-0.5, 0.7]}),
    "conv, sum": ("FusedConv", (*IMAGE, normal(N, 6, 3, 3)), (0, 3), {"activation": "Relu"}),
    "embedding": ("EmbedLayerNormalization", (IDS, IDS, *TABLES), (0, 1), {}),
    "embedding, places": ("EmbedLayerNormalization", (IDS, None, *TABLES[:2], None, *TABLES[3:], None, IDS), (0, 8), {}),
    "attention": ("Attention", QKV, (0,), {"num_heads": H}),
    "attention, scale": ("Attention", QKV, (0,), {"num_heads": H, "scale": 0.3}),
    "attention, causal": ("Attention", QKV, (0,), {"num_heads": H, "unidirectional": 1}),
    "attention, raw": ("Attention", (*QKV, MASKS["raw"]), (0, 3), {"num_heads": H}),
    "attention, lengths": ("Attention", (*QKV, MASKS["lengths"]), (0, 3), {"num_heads": H, "mask_filter_value": -2.0}),
    "attention, of queries": ("Attention", (*QKV, MASKS["of queries"]), (0, 3), {"num_heads": H}),
    "attention, raw, causal": ("Attention", (*QKV, MASKS["raw"]), (0, 3), {"num_heads": H, "unidirectional": 1}),
    "attention, added": ("Attention", (*QKV, None, None, normal(N, H, S, S)), (0, 5), {"num_heads": H}),
    "attention, sizes": ("Attention", (QKV[0], normal(C, 40), normal(40)), (0,), {"num_heads": H, "qkv_hidden_sizes": [8, 8, 24]}),
    "heads": ("MultiHeadAttention", THREE, (0, 1, 2), {"num_heads": H}),
    "heads, bias": ("MultiHeadAttention", (*THREE, normal(4 * C)), (0, 1, 2), {"num_heads": H, "scale": 0.3}),
    "heads, mask": (
        "MultiHeadAttention", (*THREE, None, (RNG.random((N, S + 1)) < 0.6).astype(np.int32)), (0, 1, 2, 4), {"num_heads": H}
    ),
    "heads, added": ("MultiHeadAttention", (*THREE, None, None, normal(1, H, S, S + 1)), (0, 1, 2, 5), {"num_heads": H}),
}  # fmt: skip
STAYS: dict[str, Case] = {
    "keys by heads": ("MultiHeadAttention", (THREE[0], normal(N, H, S, 4), normal(N, H, S, 4)), (0, 1, 2), {"num_heads": H}),
    "past": ("Attention", (*QKV, None, normal(2, N, H, 3, 4)), (0, 4), {"num_heads": H}),
    "turned batch": ("FusedMatMul", (normal(4, 3, 5), normal(3, 5, 6)), (0, 1), {"transBatchA": 1}),
}
RESULTS = {"past": ["y", "present"], "embedding": ["y", ""], "embedding, places": ["y", ""]}


def model_of(name: str, case: Case) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """One operator; operands at the places named are inputs, the others constants."""
    op, arrays, places, facts = case
    names = ["" if array is None else f"x{place}" for place, array in enumerate(arrays)]
    feeds = {f"x{place}": array for place, array in enumerate(arrays) if place in places and array is not None}
    made = RESULTS.get(name, ["y", "", "", "sum"] if op.startswith("Skip") else ["y"])
    graph = helper.make_graph(
        [helper.make_node(op, names, made, domain="com.microsoft", **facts)],
        "fused",
        [
            helper.make_tensor_value_info(x, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for x, array in feeds.items()
        ],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, None) for result in made if result],
        [
            numpy_helper.from_array(array, f"x{place}")
            for place, array in enumerate(arrays)
            if place not in places and array is not None
        ],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8), feeds


def domains(model: onnx.ModelProto) -> set[str]:
    return {node.domain for node in model.graph.node}


@pytest.mark.parametrize("name", CASES)
def test_a_fused_operator_written_out_computes_the_same(name: str) -> None:
    model, feeds = model_of(name, CASES[name])
    found = normalize(model)
    assert domains(found) == {""}
    for expected, values in zip(tiny_models.run(model, feeds), tiny_models.run(found, feeds), strict=True):
        np.testing.assert_allclose(values, expected, rtol=2e-5, atol=2e-5)
    assert normalize(found).SerializeToString(deterministic=True) == found.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", STAYS)
def test_what_cannot_be_written_out_stays(name: str) -> None:
    model, _ = model_of(name, STAYS[name])
    assert [node.op_type for node in normalize(model).graph.node] == [STAYS[name][0]]


def test_a_wrong_formula_is_noticed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(contrib, "sqrt", lambda value: 1.01 * value**0.5)
    assert domains(normalize(model_of("gelu", CASES["gelu"])[0])) == {"com.microsoft"}
    assert "left out" in caplog.text and "fused operators" in caplog.text


def encoder(mask: bool, opset: int = 17) -> onnx.ModelProto:
    """A layer of a transformer as the optimizer writes it."""
    b = Builder(["batch", S, C], opset=opset)
    own = {"domain": "com.microsoft"}
    qkv = (b.const(b.rng.normal(0, 0.3, (C, 3 * C))), b.vector(3 * C))
    lengths = [b.node("Cast", b.node("ReduceMax", b.node("ArgMax", "x", axis=2, keepdims=0), axes=[1], keepdims=0), to=6)]
    y = b.node("Attention", "x", *qkv, *(lengths if mask else []), num_heads=H, **own)
    product = b.node("MatMul", y, b.weight(C, C))
    y = b.node("SkipLayerNormalization", product, "x", *(b.vector(C) for _ in range(3)), **own)
    hidden = b.node("BiasGelu", b.node("MatMul", y, b.weight(C, 24)), b.vector(24), **own)
    product = b.node("MatMul", hidden, b.weight(24, C))
    y = b.node("SkipLayerNormalization", product, y, *(b.vector(C) for _ in range(3)), **own)
    return b.finish(y, ["batch", S, C])


@pytest.mark.parametrize("opset", [11, 14, 17])
@pytest.mark.parametrize("mask", [False, True])
def test_heads_and_hidden_channels_of_an_optimized_encoder_can_go(mask: bool, opset: int) -> None:
    proto = normalize(encoder(mask, opset))
    onnx.checker.check_model(proto)
    graph = parse(proto)
    assert not graph.unmodelled
    free = {group.root: group for group in graph.channel_groups if group.locked_because is None}
    assert sorted(group.channels for group in free.values()) == [H, 24]
    keep = {root: np.arange(group.channels)[::2] for root, group in free.items()}
    feeds = tiny_models.feeds(proto)
    expected = tiny_models.run(mask_channels(proto, graph, keep), feeds)[0]
    found = tiny_models.run(remove_channels(proto, graph, keep), feeds)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(tiny_models.run(proto, feeds)[0], expected, rtol=1e-2)


@pytest.mark.parametrize("opset", [11, 16])
def test_a_normalization_that_is_newer_than_its_opset_raises_it(opset: int) -> None:
    b = Builder(["batch", S, C], opset=opset)
    y = b.node("LayerNormalization", b.node("MatMul", "x", b.weight(C, C)), b.vector(C), b.vector(C), epsilon=0.1)
    model = b.finish(b.node("MatMul", y, b.weight(C, 5)), ["batch", S, 5])
    found = normalize(load_model(model).proto)
    onnx.checker.check_model(found)
    feeds = tiny_models.feeds(model)
    np.testing.assert_allclose(tiny_models.run(found, feeds)[0], tiny_models.run(model, feeds)[0], rtol=1e-5, atol=1e-5)
    assert [node.op_type for node in found.graph.node] == ["MatMul", "LayerNormalization", "MatMul"]


def optimized(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model as ONNX Runtime writes it after its extended optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


@pytest.mark.parametrize("make", [tiny_models.residual, tiny_models.depthwise, tiny_models.mlp_block, tiny_models.attention])
def test_a_file_that_onnx_runtime_optimized_has_the_same_layers(
    make: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    model = make()
    fused = optimized(model, tmp_path / "fused.onnx")
    assert "com.microsoft" in domains(fused)
    found, before = normalize(fused), normalize(model)
    assert domains(found) == {""}
    shapes = [sorted(str(layer.loop_dims) for layer in parse(proto).layers) for proto in (found, before)]
    assert shapes[0] == shapes[1]
    groups = [
        sorted((group.channels, group.locked_because is None) for group in parse(proto).channel_groups)
        for proto in (found, before)
    ]
    assert groups[0] == groups[1]
