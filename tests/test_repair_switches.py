"""Each repair has a name of its own: what its absence leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

import hwc_onnx
from hwc_onnx.errors import UsageError
from hwc_onnx.plan import REPAIRS
from hwc_onnx.quantization.quantizer import dequantize
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import calibrate, open_float_model
from tests import tiny_models
from tests.pruning.prepared import prepare

IMAGES = 64


def errors(repairs: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, bool]:
    """Mean error of each channel behind the first layer, its mean square, and whether the layer's bias is as it was."""
    made = prepare(tiny_models.chain, images=IMAGES)
    opened = open_float_model(tiny_models.chain())
    calibrated = calibrate(opened, made.samples, seed=0, repairs=repairs)
    plan = uniform(opened.graph, parse_spec("w2a16"))
    layer = opened.graph.layers[0]
    stitched = calibrated.database.stitch(plan)
    layout, weight = calibrated.database.views[layer.key].layout, stitched.weights[layer.key]
    patches = made.patches(layer)
    old = layout.to_rows(made.weight(layer))
    assert weight.params is not None
    values = layout.to_rows(dequantize(weight.codes, weight.params))
    bias = calibrated.database.parameters[layer.key].bias
    assert bias is not None and weight.bias is not None
    shift = (weight.bias.astype(np.float64) - bias.astype(np.float64)).reshape(layout.groups, layout.rows, 1)
    found = (values - old) @ patches.transpose(0, 2, 1) + shift
    return found.mean(axis=2), (found**2).mean(axis=2), np.array_equal(weight.bias, bias.astype(np.float32))


def test_bias_correction_takes_the_mean_error_and_its_switch_leaves_the_bias_alone() -> None:
    mean, power, same = errors(("bias",))
    # the last digits are those of a bias in single precision
    assert not same and (np.abs(mean) < 1e-3 * np.sqrt(power)).all()
    mean, power, same = errors(())
    assert same and (np.abs(mean) > 1e-3 * np.sqrt(power)).any()


def test_what_is_listed_is_recorded_and_an_unknown_name_is_refused() -> None:
    model = tiny_models.chain()
    plan = hwc_onnx.uniform_plan(model, "w4a8")
    data = {"x": tiny_models.feeds(model, 4 * IMAGES, seed=0)["x"]}
    for chosen in (("bias",), ("normalizations", "bias"), (), REPAIRS):
        applied = hwc_onnx.apply_plan(model, plan=plan, data=data, metric="cosine", repairs=chosen)
        assert applied.plan.calibration.repairs == tuple(name for name in REPAIRS if name in chosen)
    with pytest.raises(UsageError, match="biases"):
        hwc_onnx.apply_plan(model, plan=plan, data=data, repairs=("biases",))
