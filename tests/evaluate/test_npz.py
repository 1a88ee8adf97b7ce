from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.errors import DataError
from hwc_onnx.evaluate.datasets import describe, load_data
from hwc_onnx.evaluate.runner import InputSpec, input_specs
from tests.evaluate.linear_model import classifier, labelled

SPECS = input_specs(classifier())
RNG = np.random.default_rng(0)


def pixels(count: int = 6) -> np.ndarray:
    return RNG.integers(0, 256, (count, 1, 8, 8), np.uint8)


def saved(folder, **arrays):
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def test_npz_uint8_images_are_divided_then_normalised(tmp_path):
    x = pixels()
    path = saved(tmp_path, x=x, y=np.arange(6) % 5, mean=np.float32([0.3]), std=np.float32([0.2]))
    data = load_data(str(path), SPECS)
    found = data.pool.samples()
    np.testing.assert_allclose(found.inputs["image"], (x / 255 - 0.3) / 0.2, rtol=1e-5, atol=1e-6)
    assert found.inputs["image"].dtype == np.float32
    assert data.preprocess["mean"] == [pytest.approx(0.3)]
    assert found.labels.tolist() == [0, 1, 2, 3, 4, 0]


def test_npz_normalisation_before_division_fails_the_oracle(tmp_path):
    """Broken twin: mean and std applied to 0..255."""
    x = pixels()
    path = saved(tmp_path, x=x, mean=np.float32([0.3]), std=np.float32([0.2]))
    found = load_data(path, SPECS).pool.samples().inputs["image"]
    assert not np.allclose(found, ((x - 0.3) / 0.2) / 255, rtol=1e-2)


def test_npz_without_mean_only_divides_and_says_so(tmp_path):
    x = pixels()
    data = load_data(saved(tmp_path, x=x), SPECS)
    np.testing.assert_allclose(data.pool.samples().inputs["image"], x / np.float32(255), rtol=1e-6)
    assert "only divided by 255" in data.notes[0]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_npz_mean_per_channel_follows_the_layout(tmp_path, layout):
    shape = (4, 3, 8, 8) if layout == "nchw" else (4, 8, 8, 3)
    x = RNG.integers(0, 256, shape, np.uint8)
    mean, std = np.float32([0.1, 0.2, 0.3]), np.float32([0.5, 0.6, 0.7])
    spec = InputSpec("image", (None, *shape[1:]), np.dtype(np.float32))
    found = load_data(saved(tmp_path, x=x, mean=mean, std=std), [spec]).pool.samples().inputs["image"]
    view = (3, 1, 1) if layout == "nchw" else (3,)
    np.testing.assert_allclose(found, (x / 255 - mean.reshape(view)) / std.reshape(view), rtol=1e-4, atol=1e-5)


def test_npz_named_input_and_holdout(tmp_path):
    x, y = labelled(10)
    data = load_data(saved(tmp_path, image=x, y=y, image_holdout=x[:4], y_holdout=y[:4]), SPECS)
    assert (len(data.pool), len(data.holdout)) == (10, 4)
    np.testing.assert_array_equal(data.holdout.samples().inputs["image"], x[:4])
    assert data.preprocess == {}


def test_npz_double_is_converted_and_text_is_not_read(tmp_path):
    x, _ = labelled(4)
    found = load_data(saved(tmp_path, x=x.astype(np.float64)), SPECS).pool.samples()
    assert found.inputs["image"].dtype == np.float32


def test_npz_preset_overrides_and_stored_serves_when_nothing_else_does(tmp_path):
    x = pixels()
    stored = {"mean": [0.5], "std": [0.5]}
    plain, own = saved(tmp_path, x=x), {"mean": np.float32([0.1]), "std": np.float32([1.0])}
    found = load_data(plain, SPECS, stored=stored)
    np.testing.assert_allclose(found.pool.samples().inputs["image"], (x / 255 - 0.5) / 0.5, rtol=1e-4, atol=1e-5)
    both = load_data(saved(tmp_path, x=x, **own), SPECS, stored=stored)
    assert any("differ from those stored" in note for note in both.notes)
    asked = load_data(saved(tmp_path, x=x, **own), SPECS, preset="raw")
    np.testing.assert_array_equal(asked.pool.samples().inputs["image"], x.astype(np.float32))


def test_npz_float_pixels_are_remarked(tmp_path):
    data = load_data(saved(tmp_path, x=pixels().astype(np.float32)), SPECS)
    assert "like pixels without normalisation" in data.notes[-1]


def test_npz_digest_changes_with_one_pixel(tmp_path):
    x = pixels()
    first = load_data(saved(tmp_path, x=x), SPECS).digest
    assert load_data(saved(tmp_path, x=x), SPECS).digest == first
    x[0, 0, 0, 0] ^= 1
    assert load_data(saved(tmp_path, x=x), SPECS).digest != first


BAD = {
    "no input": ({"pictures": pixels()}, r"input 'image' \(found pictures\)"),
    "shape": ({"x": np.zeros((4, 1, 8, 9), np.float32)}, r"\[N, 1, 8, 9\]"),
    "layout": ({"x": np.zeros((4, 8, 8, 1), np.float32)}, "bring the samples to that shape"),
    "type": ({"x": np.zeros((4, 1, 8, 8), np.int64)}, "is int64, the model's input is float32"),
    "nan": ({"x": np.where(np.arange(4 * 64).reshape(4, 1, 8, 8) == 130, np.nan, 0)}, r"NaN.*1 of 4.*sample 2"),
    "label count": ({"x": pixels(4), "y": np.zeros(3)}, "3 labels for 4 samples"),
    "one holdout label": ({"x": pixels(), "y": np.zeros(6), "x_holdout": pixels()}, "only one of y and y_holdout"),
    "mean alone": ({"x": pixels(), "mean": np.float32([0.1])}, "belong together"),
    "std zero": ({"x": pixels(), "mean": np.zeros(1), "std": np.zeros(1)}, "above zero"),
    "mean in bytes": ({"x": pixels(), "mean": np.array([127.5]), "std": np.array([60.0])}, "look like 0..255 units"),
    "mean nan": ({"x": pixels(), "mean": np.array([np.nan]), "std": np.ones(1)}, "finite"),
    "mean channels": ({"x": pixels(), "mean": np.zeros(3), "std": np.ones(3)}, "3 entries but no axis"),
    "empty": ({"x": pixels(0)}, "no samples"),
    "pickle": ({"x": np.array([{}], dtype=object)}, "never pickled objects"),
}


@pytest.mark.parametrize("case", BAD)
def test_npz_bad_arrays_are_refused(tmp_path, case):
    arrays, words = BAD[case]
    with pytest.raises(DataError, match=words):
        load_data(saved(tmp_path, **arrays), SPECS).pool.samples()


def test_npz_truncated_or_missing_file_is_refused(tmp_path):
    path = saved(tmp_path, x=pixels())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"cannot be read as .npz|pickled"):
        load_data(path, SPECS)
    with pytest.raises(DataError, match=r"no such file or folder; give an .npz"):
        load_data(tmp_path / "none.npz", SPECS)
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"'.csv' is not a known kind"):
        load_data(tmp_path / "data.csv", SPECS)


def test_npz_whole_numbers_must_fit_the_declared_type(tmp_path):
    spec = InputSpec("ids", (None, 3), np.dtype(np.int8))
    good = load_data(saved(tmp_path, x=np.full((2, 3), 100, np.int64)), [spec]).pool.samples()
    assert good.inputs["ids"].dtype == np.int8
    with pytest.raises(DataError, match="values 0 to 300, the model's input is int8"):
        load_data(saved(tmp_path, x=np.full((2, 3), 300, np.int64)), [spec])


def test_describe_reports_what_was_found(tmp_path):
    found = describe(load_data(saved(tmp_path, x=pixels(), y=np.arange(6)), SPECS))
    assert (found["samples"], found["classes"], found["inputs"]["image"]["shape"]) == (6, 6, [1, 8, 8])
