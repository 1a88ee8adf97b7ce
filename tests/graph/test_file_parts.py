"""What the bytes of a file are for: weights as wide as they are stored, everything accounted for once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import hwc_onnx
from hwc_onnx.export import write_model
from hwc_onnx.graph import file_parts as module
from hwc_onnx.graph.file_parts import file_parts, growth
from hwc_onnx.graph.parse import parse
from tests import tiny_models
from tests.graph.test_recurrent import HIDDEN, INPUTS, recurrent

MODELS = ("chain", "residual", "depthwise", "mlp_block", "attention", "conv_transpose", "squeeze_excite")


def applied(model: str, spec: str, dialect: str, path: Path) -> dict[str, int]:
    """The parts of the written file, which add up to it."""
    proto = tiny_models.ALL[model]()
    plan = hwc_onnx.uniform_plan(proto, spec).model_copy(update={"dialect": dialect})
    data = {"x": tiny_models.feeds(proto, 256)["x"]}
    written = write_model(hwc_onnx.apply_plan(proto, plan=plan, data=data).proto, path / "m.onnx")
    assert sum(written.parts.values()) == written.file_bytes == (path / "m.onnx").stat().st_size
    return dict(written.parts)


def values(model: str) -> int:
    """How many weights the layers have."""
    return sum(int(np.prod(layer.weight_shape)) for layer in parse(tiny_models.ALL[model]()).layers if layer.weight)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("dialect", "stored"), [("ort", 0.5), ("qcdq", 1.0), ("qonnx", 4.0)])
def test_weights_take_what_they_are_stored_in(model: str, dialect: str, stored: float, tmp_path: Path) -> None:
    """4-bit weights: two in a byte, one in a byte, or as floats with a Quant node."""
    parts = applied(model, "w4a8", dialect, tmp_path)
    layers = len(parse(tiny_models.ALL[model]()).layers)
    assert stored * values(model) <= parts["weights"] <= stored * values(model) + layers
    assert all(value > 0 for name, value in parts.items() if name not in ("metadata", "constants"))


def test_wider_weights_make_only_the_weights_larger(tmp_path: Path) -> None:
    narrow, wide = (applied("residual", spec, "ort", tmp_path) for spec in ("w4a8", "w8a8"))
    assert wide["weights"] == pytest.approx(2 * narrow["weights"], rel=0.02)
    assert abs(wide["quantizers"] - narrow["quantizers"]) < 0.1 * narrow["quantizers"] + 16


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_both_weights_of_a_recurrent_layer_count(op: str) -> None:
    proto = recurrent(op, directions=1)
    gates = {"LSTM": 4, "GRU": 3}[op]
    parts = file_parts(proto, proto.ByteSize())
    assert parts["weights"] == 4 * (gates * HIDDEN * (INPUTS + HIDDEN) + HIDDEN * 3)
    assert parts["constants"] == 4 * 2 * gates * HIDDEN + 16 and parts["quantizers"] == 0


def test_weights_are_looked_for_behind_what_restores_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin: only what a layer reads itself counts as its weight."""
    monkeypatch.setattr(module, "CARRIERS", frozenset())
    assert applied("chain", "w4a8", "ort", tmp_path)["weights"] == 0


def shared(convolutions: int, twins: bool = True) -> onnx.ModelProto:
    """Convolutions after one another, all of one weight, or (the broken twin) each of its own."""
    weight = np.random.default_rng(0).normal(size=(8, 8, 3, 3)).astype(np.float32)
    names = ["w" if twins else f"w{place}" for place in range(convolutions)]
    nodes = [
        onnx.helper.make_node("Conv", [f"t{place}" if place else "x", name], [f"t{place + 1}"], name=f"c{place}", pads=[1, 1, 1, 1])
        for place, name in enumerate(names)
    ]
    shape = [1, 8, 6, 6]
    graph = onnx.helper.make_graph(
        nodes,
        "shared",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info(f"t{convolutions}", onnx.TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(weight, name) for name in sorted(set(names))],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


def test_a_file_that_grew_since_weights_were_shared_says_so(tmp_path: Path) -> None:
    data = {"x": np.random.default_rng(1).normal(size=(256, 8, 6, 6)).astype(np.float32)}
    notes = {}
    for twins in (True, False):
        proto = shared(12, twins)
        onnx.save(proto, tmp_path / "m.onnx")
        found = hwc_onnx.apply_plan(tmp_path / "m.onnx", plan=hwc_onnx.uniform_plan(proto, "w8a8"), data=data)
        notes[twins] = [text for text in found.notes if "larger than the original" in text]
    assert len(notes[True]) == 1 and "12 layers of the original share 1 weight, here each has its own" in notes[True][0]
    assert notes[False] == []


def test_growth_without_shared_weights_has_another_reason() -> None:
    proto, parts = shared(2, twins=False), {"weights": 1000, "graph": 4000}
    assert growth(proto, 5000, parts) is None
    found = growth(proto, 4999, parts)
    assert found is not None and "5,000 bytes, 4,999" in found and "most of it is not weights" in found
    data = {"x": np.random.default_rng(1).normal(size=(256, 8, 6, 6)).astype(np.float32)}
    plan = hwc_onnx.uniform_plan(proto, "w4a8").model_copy(update={"dialect": "qonnx"})
    notes = [text for text in hwc_onnx.apply_plan(proto, plan=plan, data=data).notes if "larger than the original" in text]
    assert len(notes) == 1 and "stores weights nearly as wide as float" in notes[0]
