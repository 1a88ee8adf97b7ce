"""examples/optimum_model.py: on the files that Optimum writes, made here by hand, and on a real export where Optimum is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.cli.tiny_case import CLASSES, SIDE, tiny_case

PROGRAM = Path(__file__).parents[2] / "examples" / "optimum_model.py"
PROCESSOR: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor", "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255,
    "image_mean": [0.5], "image_std": [0.25], "size": {"height": SIDE, "width": SIDE},
}  # fmt: skip
CONFIG = {"architectures": ["ResNetForImageClassification"], "model_type": "resnet", "num_channels": 1}


def run(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROGRAM, "exported", "samples.npz", "small", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The tiny network as Optimum exports one: input `pixel_values` with every axis open, output `logits`, and two files of JSON."""
    model, arrays = tiny_case(np.random.default_rng(0), 800)
    (given,) = model.graph.input
    given.name = model.graph.node[0].input[0] = "pixel_values"
    for dimension, name in zip(given.type.tensor_type.shape.dim, ("batch_size", "num_channels", "height", "width"), strict=True):
        dimension.dim_param = name
    folder = tmp_path / "exported"
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    pixels = np.clip((arrays["x"].astype(np.float32) * 0.25 + 0.5) * 255, 0, 255).round().astype(np.uint8)
    np.savez(tmp_path / "samples.npz", images=pixels, labels=arrays["y"])
    return folder


def test_folder_of_optimum_becomes_a_smaller_one(exported: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    done = run(tmp_path, {**environment, "HF_HUB_OFFLINE": "1"}, "2", "60")
    assert done.returncode == 0, done.stderr
    assert "top1: drop " in done.stdout and "goal met" in done.stdout, done.stdout
    small = tmp_path / "small"
    assert json.loads((small / "config.json").read_text()) == CONFIG
    assert {file.name for file in small.iterdir()} == {"model.onnx", "config.json", "preprocessor_config.json", "hwc"}
    written = onnx.load(small / "model.onnx")
    assert [tensor.name for tensor in written.graph.input] == ["pixel_values"]
    recorded = {entry.key: entry.value for entry in written.metadata_props}
    assert json.loads(recorded["hwc.preprocess"])["mean"] == [0.5]
    assert (small / "model.onnx").stat().st_size < (exported / "model.onnx").stat().st_size


def test_images_of_another_size_are_refused(exported: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    np.savez(tmp_path / "samples.npz", images=np.zeros((200, 1, SIDE + 1, SIDE), np.uint8), labels=np.zeros(200, np.int64))
    done = run(tmp_path, environment)
    assert done.returncode == 1 and f"says ({SIDE}, {SIDE}); resize them first" in done.stderr


def test_labels_of_other_images_are_noticed_before_the_search(exported: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as archive:
        np.savez(tmp_path / "samples.npz", images=archive["images"], labels=np.roll(archive["labels"], 7))
    done = run(tmp_path, environment)
    assert done.returncode == 1 and "chance" in done.stderr and not (tmp_path / "small").exists(), done.stderr


@pytest.mark.slow
def test_real_export_opens_in_optimum_again(tmp_path: Path, environment: dict[str, str]) -> None:
    exporters: Any = pytest.importorskip("optimum.exporters.onnx", reason="optimum-onnx and transformers are not installed (150 MB)")
    transformers: Any = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=16, patch_size=4,
        num_channels=3, num_labels=CLASSES, initializer_range=0.2,
    )  # fmt: skip
    transformers.set_seed(0)
    transformers.ViTForImageClassification(config).eval().save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
    exporters.main_export(str(tmp_path / "vit"), output=str(tmp_path / "exported"), task="image-classification")
    pixels = np.random.default_rng(0).integers(0, 256, (600, 3, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "samples.npz", images=pixels)
    done = run(tmp_path, {**environment, "HF_HUB_OFFLINE": "1"}, "2", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Optimum: ORTModelForImageClassification logits (4, 4)" in done.stdout
    assert "goal met" in done.stdout


@pytest.mark.slow
def test_real_export_of_a_text_model_takes_token_arrays(tmp_path: Path, environment: dict[str, str]) -> None:
    exporters: Any = pytest.importorskip("optimum.exporters.onnx", reason="optimum-onnx and transformers are not installed (150 MB)")
    transformers: Any = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32, num_labels=3, initializer_range=0.3,
    )  # fmt: skip
    transformers.set_seed(0)
    transformers.BertForSequenceClassification(config).eval().save_pretrained(tmp_path / "bert")
    exporters.main_export(str(tmp_path / "bert"), output=str(tmp_path / "exported"), task="text-classification")
    tokens = np.random.default_rng(0).integers(5, 100, (600, 16))
    np.savez(tmp_path / "samples.npz", input_ids=tokens, attention_mask=np.ones_like(tokens), token_type_ids=np.zeros_like(tokens))
    done = run(tmp_path, {**environment, "HF_HUB_OFFLINE": "1"}, "2", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Optimum: ORTModelForSequenceClassification logits (4, 3)" in done.stdout
