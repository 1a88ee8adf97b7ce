"""The written file is no larger than the INT8 file of the same exporter, and much smaller where all weights are narrow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import hwc_onnx

SAMPLES = Path(__file__).parents[1] / "sample_models"
MODELS = ("resnet20", "vgg_small", "mobilenetv2_small", "vit_tiny")
WIDER = ("w7a8", "w8a8,fine=obs:0.5", "w5a8,coarse=l2:0.1")
CLIPPED = ("w7a5",)
"""Activations of 5 to 7 bits need a Clip for each stored tensor, which the metadata's room does not hold."""
ROOM, CLIP = 2048, 30
"""Bytes of metadata, and of one Clip node."""
SHARE = {"resnet20": 0.6, "vgg_small": 0.6, "vit_tiny": 0.63}
"""Largest share of the INT8 file, from 200,000 parameters. A fifth of vit_tiny's is what stays in float: embeddings, biases, scales,
normalizations; the file's parts tell."""


def written(model: str, spec: str, folder: Path) -> tuple[int, int, int]:
    """Bytes of the file of a uniform setting, of INT8's file, and the Clip nodes in it."""
    path = SAMPLES / f"{model}.onnx"
    with np.load(SAMPLES / "fashion_mnist.npz", allow_pickle=False) as archive:
        data = {name: archive[name][:300] for name in ("x", "y")} | {name: archive[name] for name in ("mean", "std")}
    applied = hwc_onnx.apply_plan(path, plan=hwc_onnx.uniform_plan(path, spec), data=data, recovery="none")
    total = applied.save(folder / "out.onnx").file_bytes
    assert applied.int8_bytes is not None
    return total, applied.int8_bytes, sum(node.op_type == "Clip" for node in onnx.load(folder / "out.onnx").graph.node)


@pytest.mark.parametrize("model", MODELS)
def test_no_file_is_larger_than_int8_and_narrow_ones_are_much_smaller(model: str, tmp_path: Path) -> None:
    total, int8, clips = written(model, "w8a8", tmp_path)
    assert total == int8
    for spec in (*WIDER, *CLIPPED):
        total, int8, new = written(model, spec, tmp_path)
        assert total <= int8 + ROOM + (CLIP * (new - clips) if spec in CLIPPED else 0), spec
    # the twin: weights left as they are
    total, int8, _ = written(model, "w16a8", tmp_path)
    assert total > int8 + ROOM
    if model in SHARE:
        for spec in ("w4a8", "w2a4"):
            total, int8, _ = written(model, spec, tmp_path)
            assert total <= SHARE[model] * int8, spec
        total, int8, _ = written(model, "w6a8", tmp_path)
        assert total > SHARE[model] * int8


def test_the_parts_of_a_file_add_up_and_only_weights_shrink_with_their_width(tmp_path: Path) -> None:
    path, data = SAMPLES / "resnet20.onnx", {"x": np.zeros((256, 1, 28, 28), np.float32)}
    found = {}
    for spec in ("w8a8", "w4a8"):
        applied = hwc_onnx.apply_plan(path, plan=hwc_onnx.uniform_plan(path, spec), data=data, recovery="none")
        written = applied.save(tmp_path / f"{spec}.onnx")
        assert sum(written.parts.values()) == written.path.stat().st_size == written.file_bytes
        found[spec] = written.parts
    wide, narrow = found["w8a8"], found["w4a8"]
    elements = sum(np.prod(layer.weight_shape) for layer in hwc_onnx.inspect(path).layers if layer.weight_shape)
    assert wide["weights"] == elements and 2 * narrow["weights"] == elements
    assert narrow["constants"] == wide["constants"] > 0
    # 4-bit zero points take half a byte for each output channel
    assert wide["quantizers"] > narrow["quantizers"] > 0.5 * wide["quantizers"]
