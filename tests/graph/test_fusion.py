from __future__ import annotations

import onnx

from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.tiny_models import Builder


def fused(model: onnx.ModelProto) -> dict[str, str]:
    return dict(parse(normalize(model)).fused)


def test_fused_chain_activation_streams() -> None:
    assert fused(tiny_models.chain()) == {"t0": "t1", "t2": "t3"}


def test_fused_residual_branch_finished_last_streams_and_skip_is_stored() -> None:
    found = fused(tiny_models.residual())
    assert found["t4"] == "t5" and "t1" not in found  # the trunk also feeds the block
    assert found["t10"] == "t11" and "t9" not in found  # the shortcut comes last in the file
    assert found["t5"] == "t6" and found["t11"] == "t12"


def test_fused_gelu_is_one_unit() -> None:
    found = fused(tiny_models.mlp_block())
    assert [name for name in ("t1", "t2", "t3", "t4", "t5", "t6") if name not in found] == []
    assert "t7" not in found  # read by the second layer, so stored


def test_fused_silu_and_hard_swish_are_units_but_a_gate_is_stored() -> None:
    found = fused(tiny_models.squeeze_excite())
    assert {"t0", "t1"} <= set(found) and "t2" not in found
    assert {"t9", "t10", "t11", "t12"} <= set(found)
    assert "t7" not in found  # the gate is smaller than what it scales, so it cannot stream


def test_fused_second_reader_outside_the_unit_means_stored() -> None:
    b = Builder(["batch", 3, 6, 6])
    first = b.conv("x", 3, 4)
    inner = b.node("Relu", first)
    model = tiny_models.head(
        b, b.node("Add", b.conv(inner, 4, 4), b.node("Tanh", b.node("MaxPool", first, kernel_shape=[1, 1]))), 4
    )
    assert first not in fused(model)


def test_fused_model_output_is_stored() -> None:
    b = Builder(["batch", 3, 6, 6])
    model = tiny_models.head(b, b.node("Relu", b.conv("x", 3, 4)), 4)
    model.graph.output.append(onnx.helper.make_tensor_value_info("t0", 1, ["batch", 4, 6, 6]))
    assert "t0" not in fused(model)


def test_fused_batch_norm_behind_concat_streams_into_relu() -> None:
    found = fused(tiny_models.batch_norm())
    assert found == {"t4": "t5"}
