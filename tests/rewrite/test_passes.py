from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto

from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.rewrite.passes import Pass, run
from tests import tiny_models


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(proto.SerializeToString())


def nothing(proto: onnx.ModelProto) -> onnx.ModelProto:
    return copied(proto)


def renames_output(proto: onnx.ModelProto) -> onnx.ModelProto:
    model = copied(proto)
    model.graph.node[-1].output[0] = model.graph.output[0].name = "z"
    return model


def fixes_batch(proto: onnx.ModelProto) -> onnx.ModelProto:
    model = copied(proto)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return model


def drops_node(proto: onnx.ModelProto) -> onnx.ModelProto:
    model = copied(proto)
    del model.graph.node[1]
    return model


def unknown_op(proto: onnx.ModelProto) -> onnx.ModelProto:
    model = copied(proto)
    model.graph.node[1].op_type = "Conv"
    model.graph.node[1].input.append("c5")
    return model


def retypes_output(proto: onnx.ModelProto) -> onnx.ModelProto:
    model = copied(proto)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    return model


def test_run_good_passes_apply_in_order() -> None:
    model = tiny_models.chain()
    assert run(model, [Pass("first", nothing), Pass("second", nothing)]) == model


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (renames_output, "changed the declaration of output 'y'"),
        (fixes_batch, "changed the declaration of input 'x'"),
        (retypes_output, "changed the declaration of output 'y'"),
        (drops_node, r"refuses at node 'conv2'"),
        (unknown_op, r"refuses at node 'relu1' \(Conv\)"),
    ],
)
def test_run_pass_that_breaks_the_contract_is_named(do: object, words: str) -> None:
    with pytest.raises(RuntimeFailure, match=words) as caught:
        run(tiny_models.chain(), [Pass("harmless", nothing), Pass("culprit", do)])  # type: ignore[arg-type]
    assert "pass 'culprit' (after harmless)" in str(caught.value)


def test_run_requirement_not_met_is_said() -> None:
    needs = Pass("needs", nothing, require=lambda proto: "the model has no batch axis")
    with pytest.raises(RuntimeFailure, match="pass 'needs' cannot run: the model has no batch axis"):
        run(tiny_models.chain(), [needs])
