"""`data check`: figures against NumPy, wrong normalisation found with the preset that mends it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hwc_onnx.accuracy.types import Samples
from hwc_onnx.data_check import sheet
from hwc_onnx.errors import UsageError
from tests.cli.running import Case, hwc
from tests.cli.tiny_case import CLASSES, run, tiny_model

Validate = Callable[[str, Any], None]
COUNT = 1200


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A network that labels images itself as they are at -1..1, and the images as pixels without a word on normalisation."""
    folder = tmp_path_factory.mktemp("pixels")
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (COUNT, 1, 4, 4)).repeat(2, axis=2).repeat(2, axis=3).astype(np.uint8)
    values = (smooth / 255.0 - 0.5).astype(np.float32) / 0.5
    model = tiny_model(rng)
    # classes that depend on the mean too, so that other scales and offsets give other answers
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "b1")
    bias.CopyFrom(onnx.numpy_helper.from_array(rng.normal(0, 0.5, 8).astype(np.float32), "b1"))
    last = next(tensor for tensor in model.graph.initializer if tensor.name == "b3")
    last.CopyFrom(onnx.numpy_helper.from_array(-run(model, values).mean(axis=0), "b3"))
    labels = run(model, values).argmax(axis=1).astype(np.int64)
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "p.npz", x=smooth, y=labels)
    return str(folder / "m.onnx"), str(folder / "p.npz")


def checked(*arguments: object, code: int = 0) -> Any:
    result = hwc("data", "check", *arguments, "--json")
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout)


def test_figures_are_those_of_the_arrays(case: Case, schema: Validate) -> None:
    found = checked(case.model, "--data", case.data, "--samples", 5000)
    schema("data-check", found)
    arrays = np.load(case.data)
    entry = found["inputs"][0]
    assert entry["shape"] == [1, 8, 8] and found["samples"] == found["looked_at"] == len(arrays["x"])
    for name in ("min", "max", "mean", "std"):
        assert entry[name] == pytest.approx(float(getattr(arrays["x"].astype(np.float64), name)()), rel=1e-9)
    assert entry["channels"] == [{"mean": pytest.approx(entry["mean"]), "std": pytest.approx(entry["std"])}]
    counts = np.bincount(arrays["y"])
    assert [(row["label"], row["samples"]) for row in found["labels"]["counts"]] == list(enumerate(counts))
    assert found["accuracy"]["value"] == 1.0 and found["accuracy"]["ci95"][0] > 0.99
    assert found["presets"] == [] and found["error"] is None


def test_the_preset_that_a_network_was_made_for_scores_best_and_is_named(pixels: tuple[str, str], schema: Validate) -> None:
    model, data = pixels
    found = checked(model, "--data", data)
    schema("data-check", found)
    best = found["presets"][0]
    assert best["value"] == 1.0 and best["better"] and best["preset"] in ("signed", "inception")
    assert found["accuracy"]["value"] < 1.0 and any("give --preset" in text for text in found["advice"])
    right = checked(model, "--data", data, "--preset", "signed")
    assert right["accuracy"]["value"] == 1.0 and not any(entry["better"] for entry in right["presets"]) and right["advice"] == []
    shown = hwc("data", "check", model, "--data", data).stdout
    assert "--preset signed (better)" in shown and "give --preset" in shown
    assert all(len(line) <= 80 or Path(data).parent.name in line for line in shown.splitlines())


def test_a_score_at_chance_exits_with_4_and_says_what_to_do(pixels: tuple[str, str], tmp_path: Path) -> None:
    model, data = pixels
    arrays = dict(np.load(data))
    np.savez(tmp_path / "wrong.npz", x=arrays["x"], y=np.random.default_rng(1).permutation(arrays["y"]))
    result = hwc("data", "check", model, "--data", tmp_path / "wrong.npz")
    assert result.exit_code == 4
    assert "check normalisation" in result.stderr and "no preset scores better" in result.stdout.replace("\n", " ").replace("  ", " ")
    assert checked(model, "--data", tmp_path / "wrong.npz", code=4)["error"] is not None


def test_labels_that_begin_at_one_are_named_instead_of_presets(case: Case, tmp_path: Path) -> None:
    arrays = np.load(case.data)
    kept = arrays["y"] < CLASSES - 1
    np.savez(tmp_path / "one.npz", x=arrays["x"][kept], y=arrays["y"][kept] + 1)
    found = checked(case.model, "--data", tmp_path / "one.npz", code=4)
    assert "take 1 from the labels" in found["error"] and found["advice"] == []


def test_samples_that_cannot_be_divided_are_said(case: Case, tmp_path: Path) -> None:
    arrays = np.load(case.data)
    np.savez(tmp_path / "few.npz", x=arrays["x"][:150], y=arrays["y"][:150])
    found = checked(case.model, "--data", tmp_path / "few.npz", code=4)
    assert "150 samples leave 37 for the calibration split" in found["error"] and found["accuracy"]["value"] == 1.0


def test_without_labels_nothing_is_measured(case: Case, tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", x=np.load(case.data)["x"])
    found = checked(case.model, "--data", tmp_path / "plain.npz")
    assert found["accuracy"] is None and found["labels"] is None and found["error"] is None
    assert "no labels to compare with" in hwc("data", "check", case.model, "--data", tmp_path / "plain.npz").stdout


def test_no_data_and_labels_out_of_range_are_refused(case: Case, tmp_path: Path) -> None:
    assert hwc("data", "check", case.model).exit_code == 4
    arrays = np.load(case.data)
    np.savez(tmp_path / "one.npz", x=arrays["x"], y=arrays["y"] + 1)
    result = hwc("data", "check", case.model, "--data", tmp_path / "one.npz")
    assert result.exit_code == 4 and f"labels go from 1 to {CLASSES}" in result.stderr and "subtract 1" in result.stderr


def test_contact_sheet_shows_each_image_stretched_in_its_place(pixels: tuple[str, str], tmp_path: Path) -> None:
    images = np.arange(5 * 3 * 2 * 4, dtype=np.float32).reshape(5, 3, 2, 4)
    drawn = sheet(Samples({"x": images}, None))
    assert drawn.shape == (2 * 4, 3 * 6, 3) and (drawn[4:, 12:] == 255).all()
    second = images[1].transpose(1, 2, 0)
    wanted = np.rint(255 * (second - second.min()) / (second.max() - second.min()))
    assert (drawn[1:3, 7:11] == wanted).all()
    pytest.importorskip("PIL")
    target = tmp_path / "sheet.png"
    assert hwc("data", "check", pixels[0], "--data", pixels[1], "--figure", target).exit_code == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    assert hwc("data", "check", pixels[0], "--data", pixels[1], "--figure", tmp_path / "sheet.pdf").exit_code == 2
    with pytest.raises(UsageError, match="no images"):
        sheet(Samples({"x": np.zeros((4, 10), np.float32)}, None))
