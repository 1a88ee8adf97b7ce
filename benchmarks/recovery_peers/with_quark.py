"""AMD Quark for ONNX: its XINT8 and A8W8 configurations, alone and with the repairs that its documentation names.

XINT8 (powers of two as scales, MinMSE) and A8W8 (symmetric, percentile) are taken from
`quark.onnx.quantization.config.custom_config` as they are, with and without cross-layer equalization, bias correction,
AdaRound and AdaQuant. `quark_u8w8_channel` is the same tool with the settings of the others here: a scale per output channel and
asymmetric activations; `_adaround` adds AdaRound to that. Quark has no weights below 8 bits for convolutions: its
integer types are 8, 16 and 32 bits, and its 4-bit `MatMulNBits` concerns MatMuls alone.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from feeding import Arrays, Reader
from quark.onnx import ModelQuantizer
from quark.onnx.quantization.config.algorithm import BiasCorrectionConfig, CLEConfig
from quark.onnx.quantization.config.config import QConfig
from quark.onnx.quantization.config.custom_config import (
    A8W8_ADAQUANT_QCONFIG,
    A8W8_ADAROUND_QCONFIG,
    A8W8_QCONFIG,
    XINT8_ADAROUND_QCONFIG,
    XINT8_QCONFIG,
    adaround_algo,
)
from quark.onnx.quantization.config.spec import Int8Spec, QLayerConfig, QuantGranularity, UInt8Spec

CONFIGS: dict[str, tuple[QConfig, list[Any]]] = {
    "quark_xint8": (XINT8_QCONFIG, []),
    "quark_xint8_cle": (XINT8_QCONFIG, [CLEConfig()]),
    "quark_xint8_adaround": (XINT8_ADAROUND_QCONFIG, []),
    "quark_a8w8": (A8W8_QCONFIG, []),
    "quark_a8w8_cle": (A8W8_QCONFIG, [CLEConfig()]),
    "quark_a8w8_bias": (A8W8_QCONFIG, [BiasCorrectionConfig()]),
    "quark_a8w8_adaround": (A8W8_ADAROUND_QCONFIG, []),
    "quark_a8w8_adaquant": (A8W8_ADAQUANT_QCONFIG, []),
    "quark_u8w8_channel": (A8W8_QCONFIG, []),
    "quark_u8w8_channel_adaround": (A8W8_QCONFIG, [adaround_algo]),
}
SETTINGS = {"w8a8": tuple(CONFIGS)}


def quantize(model: Path, arrays: Arrays, method: str, setting: str, out: Path) -> None:
    """Write the quantized model."""
    base, added = CONFIGS[method]
    config = copy.deepcopy(base)
    config.algo_config = [*config.algo_config, *copy.deepcopy(added)]
    if "channel" in method:
        config.global_config = QLayerConfig(
            activation=UInt8Spec(), weight=Int8Spec(quant_granularity=QuantGranularity.Channel)
        )
    # the tool writes its work files into the current folder
    source, target = model.resolve(), out.resolve()
    os.chdir(target.parent)
    ModelQuantizer(config).quantize_model(str(source), str(target), Reader(arrays, 32))
