"""NNCF's post-training quantization of ONNX models.

As https://github.com/openvinotoolkit/nncf recommends: `nncf.quantize` with its defaults (300 samples, symmetric
activations, fast bias correction), with `fast_bias_correction=False` ("more accurate"), and that with the `MIXED` preset
(asymmetric activations) on all calibration samples. Transformers get `model_type=TRANSFORMER`. `nncf_weights` is
`compress_weights` to 4 bits with data-aware scale estimation, after raising the model to opset 21, which it asks for;
activations stay float.

NNCF's own sessions are opened at level BASIC: above it ONNX Runtime fuses tensors away that the full bias correction
asks for as outputs, and the method ends in an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nncf
import nncf.onnx.engine
import onnx
import onnx.version_converter
import onnxruntime
from feeding import Arrays, batches, count, has_attention

SETTINGS = {"w8a8": ("nncf_default", "nncf_full", "nncf_mixed_full"), "w4a8": ("nncf_weights",)}
INT4_OPSET = 21
_Options = onnxruntime.SessionOptions


def quantize(model: Path, arrays: Arrays, method: str, setting: str, out: Path) -> None:
    """Write the quantized model."""
    nncf.onnx.engine.rt.SessionOptions = _basic
    dataset = nncf.Dataset(list(batches(arrays, 1)))
    proto = onnx.load(model)
    if method == "nncf_weights":
        quantized = nncf.compress_weights(
            onnx.version_converter.convert_version(proto, INT4_OPSET),
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=-1,
            ratio=1.0,
            all_layers=True,
            dataset=dataset,
            scale_estimation=True,
        )
    else:
        options: dict[str, Any] = {"model_type": nncf.ModelType.TRANSFORMER} if has_attention(model) else {}
        if method != "nncf_default":
            options["fast_bias_correction"] = False
        if method == "nncf_mixed_full":
            options |= {"preset": nncf.QuantizationPreset.MIXED, "subset_size": count(arrays)}
        quantized = nncf.quantize(proto, dataset, **options)
    onnx.save(quantized, out)


def _basic() -> onnxruntime.SessionOptions:
    """Session options at level BASIC."""
    options = _Options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return options
