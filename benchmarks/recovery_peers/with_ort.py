"""ONNX Runtime's own static quantization, in QDQ form with a scale per output channel.

As https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html recommends: `quant_pre_process` first,
then `quantize_static` in QDQ format, activations UINT8, weights INT8 per channel. The calibrators are the three that it
has with their defaults (percentile: 99.999). Weights of 4 bits are `QuantType.QInt4`, the narrowest that it has;
activations of 4 bits (`QUInt4`) are tried too. MatMulNBits concerns MatMuls alone, which the convolutional networks
do not have.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from feeding import Arrays, Reader, prepared
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

CALIBRATORS = {
    "ort_minmax": CalibrationMethod.MinMax,
    "ort_entropy": CalibrationMethod.Entropy,
    "ort_percentile": CalibrationMethod.Percentile,
}
SETTINGS = {"w8a8": tuple(CALIBRATORS), "w4a8": tuple(CALIBRATORS), "w4a4": ("ort_percentile",)}
TYPES = {
    "w8a8": (QuantType.QInt8, QuantType.QUInt8),
    "w4a8": (QuantType.QInt4, QuantType.QUInt8),
    "w4a4": (QuantType.QInt4, QuantType.QUInt4),
}
BATCH = 32


def quantize(model: Path, arrays: Arrays, method: str, setting: str, out: Path) -> None:
    """Write the quantized model."""
    weight, activation = TYPES[setting]
    with tempfile.TemporaryDirectory() as folder:
        quantize_static(
            str(prepared(model, Path(folder))),
            str(out),
            Reader(arrays, BATCH),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=activation,
            weight_type=weight,
            calibrate_method=CALIBRATORS[method],
        )
