"""AIMET for ONNX (Qualcomm): the one peer that quantizes convolutions to any width.

As its documentation recommends: cross-layer equalization on the float model, a QuantizationSimModel with a scale per
output channel (its default configuration), activation ranges by its SQNR search (`tf_enhanced`), then
sequential MSE for the scales of the weights, AdaRound for their rounding, or both. AdaRound takes the 15,000 steps per
layer that it recommends below 8 bits, 10,000 at 8. Where activations have fewer than 8 bits the network's input and the
input of its last layer keep 8, as here. Sequential MSE refuses ranges other than `min_max`.

Its QDQ files have integers of 4 and 8 bits only. Weights of 2 and 3 bits are therefore written as floats that lie on the
grid of their quantizer, which is then left out: the network computes the same.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import aimet_onnx
import numpy as np
import onnx
import onnx.numpy_helper
from aimet_onnx.cross_layer_equalization import equalize_model
from feeding import Arrays, batches, prepared

NARROW = ("aimet", "aimet_cle", "aimet_seqmse", "aimet_cle_seqmse", "aimet_adaround", "aimet_seqmse_adaround")
SETTINGS = {
    "w8a8": ("aimet", "aimet_cle", "aimet_cle_adaround"),
    "w4a8": NARROW,
    "w3a8": NARROW,
    "w4a4": NARROW,
    "w2a8": NARROW,
}
BATCH = 32
KEPT_BITS = 8


def quantize(model: Path, arrays: Arrays, method: str, setting: str, out: Path) -> None:
    """Write the quantized model."""
    found = re.fullmatch(r"w(\d+)a(\d+)", setting)
    assert found is not None
    weight_bits, activation_bits = int(found[1]), int(found[2])
    with tempfile.TemporaryDirectory() as folder:
        proto = onnx.load(prepared(model, Path(folder)))
    steps = method.split("_")[1:]
    if "cle" in steps:
        equalize_model(proto)
    samples = list(batches(arrays, BATCH))
    sim = aimet_onnx.QuantizationSimModel(
        proto,
        param_type=aimet_onnx.qtype.int(weight_bits),
        activation_type=aimet_onnx.qtype.int(activation_bits),
        quant_scheme="min_max" if "seqmse" in steps else "tf_enhanced",
    )
    for name in _kept(proto) if activation_bits < KEPT_BITS else ():
        quantizer = sim.qc_quantize_op_dict.get(name)
        if quantizer is not None:
            quantizer.set_bitwidth(KEPT_BITS)
    if "seqmse" in steps:
        aimet_onnx.apply_seq_mse(sim, samples)
    if "adaround" in steps:
        aimet_onnx.apply_adaround(sim, samples, num_iterations=15_000 if weight_bits < 8 else 10_000)
    sim.compute_encodings(samples)
    if weight_bits not in (4, 8):
        _bake(sim)
    onnx.save(sim.to_onnx_qdq(prequantize_constants=True), out)


def _bake(sim: aimet_onnx.QuantizationSimModel) -> None:
    """Round the weights to their quantizers' grids and leave these quantizers out."""
    for tensor in sim.model.initializer():
        quantizer = sim.qc_quantize_op_dict.get(tensor.name)
        if quantizer is None or not quantizer.enabled:
            continue
        weight = onnx.numpy_helper.to_array(tensor)
        encodings = quantizer.get_encodings()
        shape = [1] * weight.ndim
        if len(encodings) > 1:
            shape[quantizer.quant_info.channelAxis] = -1
        step, low, high = (
            np.array([getattr(encoding, name) for encoding in encodings]).reshape(shape) for name in ("delta", "min", "max")
        )
        rounded = step * np.clip(np.round(weight / step), np.round(low / step), np.round(high / step))
        tensor.CopyFrom(onnx.numpy_helper.from_array(rounded.astype(np.float32), tensor.name))
        quantizer.enabled = False
    # the file is refused for widths of quantizers that it does not have, those of biases among them
    for quantizer in sim.qc_quantize_op_dict.values():
        if not quantizer.enabled:
            quantizer.set_bitwidth(KEPT_BITS)


def _kept(proto: onnx.ModelProto) -> set[str]:
    """The network's inputs and outputs, and what its last layer reads."""
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    last = [node for node in graph.node if set(node.output) & outputs]
    read = {name for node in last for name in node.input}
    return ({value.name for value in graph.input} | outputs | read) - constants
