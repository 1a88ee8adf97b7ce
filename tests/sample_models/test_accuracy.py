"""The committed sample models do what sample_models/README.md says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from hwc_onnx.accuracy.runner import open_session, run
from hwc_onnx.accuracy.types import Samples

FOLDER = Path(__file__).parents[2] / "sample_models"
ROW = re.compile(r"^\| `(\w+)\.onnx` \| ([\d.]+) \| ([\d.]+) \|", re.MULTILINE)
MODELS = ("mobilenetv2_small", "resnet20", "vgg_small", "vit_tiny")
BARS = {"resnet20": 93.0, "mobilenetv2_small": 92.0, "vgg_small": 92.0, "vit_tiny": 90.0}


def stated() -> dict[str, tuple[float, float]]:
    return {name: (float(a), float(b)) for name, a, b in ROW.findall((FOLDER / "README.md").read_text())}


@pytest.fixture(scope="module")
def data():
    with np.load(FOLDER / "fashion_mnist.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def top1(name: str, data, images: str, labels: str) -> float:
    x = ((data[images].astype(np.float32) / 255 - data["mean"]) / data["std"]).astype(np.float32)
    logits = run(open_session(FOLDER / f"{name}.onnx"), Samples({"image": x}, None))["logits"]
    return 100 * float((logits.argmax(1) == data[labels]).mean())


@pytest.mark.parametrize("name", MODELS)
def test_sample_model_reaches_the_accuracy_that_the_readme_states(name, data):
    kept_out, test = stated()[name]
    assert abs(top1(name, data, "x", "y") - kept_out) <= 0.1
    measured = top1(name, data, "x_holdout", "y_holdout")
    assert abs(measured - test) <= 0.1
    assert measured >= BARS.get(name, 0.0)


@pytest.mark.parametrize("name", MODELS)
def test_sample_model_file_is_small_opset_17_with_dynamic_batch(name):
    path = FOLDER / f"{name}.onnx"
    model = onnx.load(path)
    assert path.stat().st_size <= 4 << 20
    assert [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")] == [17]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param


@pytest.mark.parametrize("name", MODELS)
def test_training_log_agrees_with_the_readme(name):
    log = json.loads((FOLDER / "training_logs" / f"{name}.json").read_text())
    assert (log["kept_out_top1"], log["test_top1"]) == stated()[name]
    assert len(log["training_loss_per_epoch"]) == log["recipe"]["epochs"]


def test_shuffled_labels_would_not_reach_the_bars(data):
    wrong = dict(data, y=np.random.default_rng(0).permutation(data["y"]))
    assert top1("vgg_small", wrong, "x", "y") < 30


def test_data_file_has_the_arrays_that_are_promised(data):
    assert data["x"].shape == (5000, 1, 28, 28) and data["x"].dtype == np.uint8
    assert data["x_holdout"].shape == (10000, 1, 28, 28)
    assert data["y"].dtype == np.int64 and data["y_holdout"].dtype == np.int64
    assert (FOLDER / "fashion_mnist.npz").stat().st_size <= 8 << 20
