"""docs/quantization.md says what the code writes and what ONNX Runtime makes of it."""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from hwc_onnx import api
from hwc_onnx.quantization.dialects import ORT
from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.quantization.ranges import _REFINE, _SHRINK, PERCENTILE
from tests import tiny_models

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "quantization.md").read_text(encoding="utf-8")
LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
    "fake_quant": "ORT_ENABLE_ALL",
}
as_observed = pytest.mark.skipif(
    not onnxruntime.__version__.startswith("1.32."), reason="the page describes ONNX Runtime 1.32"
)


def optimized(model: onnx.ModelProto, level: str, folder: Path) -> Counter[str]:
    """How many nodes of each kind ONNX Runtime runs at a level."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
    options.optimized_model_filepath = str(folder / "as_run.onnx")
    if level == "fake_quant":
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "as_run.onnx").graph.node)


def test_programs_of_the_page_print_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ROOT / "sample_models" / "resnet20.onnx"
    monkeypatch.chdir(tmp_path)
    plan = api.uniform_plan(model, "w3a4")
    api.apply_plan(model, plan=plan, data="synthetic:400", recovery="none").save("small.onnx")
    programs = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL)
    assert len(programs) == 3
    for program, shown in programs:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(program, "quantization.md", "exec"), {})
        assert printed.getvalue() == shown
    assert (tmp_path / "as_run.onnx").is_file()


def test_container_table_is_the_dialects() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| (INT\d) \| (\S+) \| (\d+) \| (yes|no) \|$", PAGE, re.MULTILINE)
    widths = {int(width): row for row in rows for width in row[0].split(",")}
    assert sorted(widths) == list(range(2, 9))
    for width, (_, container, size, opset, declared) in widths.items():
        assert ORT.weight_types[width] == (TensorProto.DataType.Value(container), int(opset))
        bits = int(container.removeprefix("INT"))
        assert (size, declared) == ({8: "1", 4: "1/2"}[bits], "yes" if width < bits else "no")


def test_numbers_of_the_range_search_are_those_of_the_code() -> None:
    assert StreamingHistogram().bins == 4096 and "4,096 bins" in PAGE
    assert len(_SHRINK) == 93 and min(_SHRINK) == pytest.approx(0.01) and "over 93 steps down to 1 %" in PAGE
    assert (min(_REFINE), max(_REFINE)) == pytest.approx((0.95, 1.05)) and "looks at 5 % around" in PAGE
    assert pytest.approx(1e-4) == 1 - PERCENTILE and "the outermost 0.01 %" in PAGE


@as_observed
@pytest.mark.parametrize(("spec", "integer"), [("w8a8", True), ("w5a4", True), ("w4a8", False), ("w2a3", False)])
def test_level_table_is_what_the_runtime_does(spec: str, integer: bool, tmp_path: Path) -> None:
    model = tiny_models.chain()
    plan = api.uniform_plan(model, spec, first_last="free")
    data = {"x": tiny_models.feeds(model, 320, seed=1)["x"]}
    written = api.apply_plan(model, plan=plan, data=data, recovery="none").proto
    for level in LEVELS:
        found = optimized(written, level, tmp_path)
        kernels = found["QLinearConv"]
        assert kernels == (2 if integer and level in ("extended", "all") else 0), level
        assert kernels + found["Conv"] == 2, level
        restored = found["DequantizeLinear"] > found["QuantizeLinear"]
        assert restored == (level != "fake_quant"), "weights are restored on opening at fake_quant only"


@as_observed
@pytest.mark.parametrize(
    ("layer", "weights", "activations", "opens"),
    [
        ("Conv", "INT8", "UINT8", True),
        ("Conv", "INT4", "UINT8", True),
        ("Conv", "INT2", "UINT8", False),
        ("Conv", "INT8", "UINT4", False),
        ("Gemm", "INT4", "UINT8", True),
        ("Gemm", "INT2", "UINT8", False),
    ],
)
def test_native_two_and_four_bit_types_are_refused_where_the_page_says(
    layer: str, weights: str, activations: str, opens: bool, tmp_path: Path
) -> None:
    shape, size, attributes = ([8, 8, 3, 3], "n,8,8,8", "") if layer == "Conv" else ([8, 8], "n,8", "<transB=1>")
    model = onnx.parser.parse_model(
        f"""<ir_version: 13, opset_import: ["": 25]> g (float[{size}] x) => (float y) {{
            q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) w = DequantizeLinear <axis=0> (wq, ws, wz)
            c = {layer} {attributes} (d, w, b) r = Relu (c) rq = QuantizeLinear (r, s, z) y = DequantizeLinear (rq, s, z) }}"""
    )
    model.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"] + ["m"] * (len(shape) - 1))
    )
    for name, data_type, dims in (("wq", weights, shape), ("wz", weights, [8]), ("z", activations, [])):
        raw = bytes(-(-int(np.prod(dims)) * int(data_type.lstrip("UINT")) // 8))
        kind = TensorProto.DataType.Value(data_type)
        model.graph.initializer.append(TensorProto(name=name, data_type=kind, dims=dims, raw_data=raw))
    for name, values in (("s", 0.1), ("ws", [0.1] * 8), ("b", [0.0] * 8)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.float32), name))
    onnx.checker.check_model(model)
    optimized(model, "basic", tmp_path)
    with contextlib.nullcontext() if opens else pytest.raises(Exception, match="Type Error"):
        optimized(model, "extended", tmp_path)


@as_observed
@pytest.mark.parametrize("second", [0.7, 0.1])
def test_two_pairs_in_a_row_are_merged_and_only_equal_ones_compute_the_same(second: float) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]> g (float[n] x) => (float[n] y) {
            q1 = QuantizeLinear (x, s1, z) d1 = DequantizeLinear (q1, s1, z)
            q2 = QuantizeLinear (d1, s2, z) d2 = DequantizeLinear (q2, s2, z) y = Relu (d2) }"""
    )
    for name, value in (("s1", 0.1), ("s2", second)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    model.graph.initializer.append(TensorProto(name="z", data_type=TensorProto.UINT8, raw_data=b"\x10"))
    x = np.linspace(-1, 10, 80, dtype=np.float32)
    found = {}
    for level in ("disable", "basic"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found[level] = session.run(None, {"x": x})[0]
    difference = np.abs(found["disable"] - found["basic"]).max()
    assert difference > 0.2 if second != 0.1 else difference < 1e-6
