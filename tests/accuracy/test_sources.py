"""Image folders, CIFAR and IDX files, functions and calibration readers."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import InputSpec, input_specs
from hwc_onnx.accuracy.presets import PRESETS, WHAT
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError, UsageError
from tests.accuracy.linear_model import classifier, labelled

Image = pytest.importorskip("PIL.Image")

FLOAT = np.dtype(np.float32)
SPECS = input_specs(classifier())
COLOUR = [InputSpec("image", (None, 3, 16, 16), FLOAT)]


def picture(path, value, size=(32, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    for name, value in (("cat/b.png", (255, 0, 0)), ("cat/a.png", (0, 255, 0)), ("dog/a.png", (0, 0, 255))):
        picture(tmp_path / name, value)
    return tmp_path


def test_folder_labels_follow_the_alphabet_and_colours_are_normalised(folder):
    data = load_data(folder, COLOUR, preset="unit,mean=0.5/0.25/0,std=0.5")
    found = data.pool.samples()
    assert found.labels.tolist() == [0, 0, 1]
    assert found.inputs["image"].shape == (3, 3, 16, 16)
    np.testing.assert_allclose(found.inputs["image"][1, :, 5, 5], [1.0, -0.5, 0.0], atol=1e-6)


def test_folder_bgr_and_channels_last(folder):
    spec = [InputSpec("image", (None, 16, 16, 3), FLOAT)]
    found = load_data(folder, spec, preset="raw,channels=bgr").pool.samples()
    np.testing.assert_array_equal(found.inputs["image"][1, 5, 5], [0, 0, 255])


def test_folder_resize_then_central_crop(tmp_path):
    strip = np.zeros((20, 60, 3), np.uint8)
    strip[:, 20:40] = 255
    (tmp_path / "c").mkdir()
    Image.fromarray(strip).save(tmp_path / "c" / "x.png")
    found = load_data(tmp_path, COLOUR, preset="raw,resize=20").pool.samples().inputs["image"]
    # the shorter side is already 20, so the central 16 x 16 lies inside the white third
    np.testing.assert_array_equal(found, np.full((1, 3, 16, 16), 255, np.float32))


def test_folder_crop_settles_an_open_size(folder):
    spec = [InputSpec("image", (None, 3, None, None), FLOAT)]
    assert load_data(folder, spec, preset="unit,crop=12").pool.samples().inputs["image"].shape == (3, 3, 12, 12)
    with pytest.raises(DataError, match="leaves the image size open"):
        load_data(folder, spec, preset="unit").pool.samples()


def test_folder_without_preset_asks_for_one(folder):
    with pytest.raises(DataError, match="does not say how images are normalised; choose the --preset") as refused:
        load_data(folder, COLOUR)
    assert all(f"{name} ({words})" in str(refused.value) for name, words in WHAT.items()) and list(WHAT) == list(PRESETS)
    with pytest.raises(UsageError, match=r"did you mean 'unit'.*raw \(0\.\.255\)"):
        load_data(folder, COLOUR, preset="units")


def test_folder_stored_preprocessing_is_used(folder):
    found = load_data(folder, COLOUR, stored={"divide": 1.0})
    assert found.pool.samples().inputs["image"].max() == 255


def test_folder_broken_image_is_named(folder):
    (folder / "dog" / "z.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"z\.jpg: cannot be read as an image"):
        load_data(folder, COLOUR, preset="unit").pool.samples()


def test_folder_empty_class_or_no_images_is_refused(folder, tmp_path_factory):
    (folder / "bird").mkdir()
    with pytest.raises(DataError, match="'bird' holds no images"):
        load_data(folder, COLOUR, preset="unit")
    with pytest.raises(DataError, match="no images found"):
        load_data(tmp_path_factory.mktemp("none"), COLOUR, preset="unit")


def test_unknown_preset_names_the_nearest(folder):
    with pytest.raises(UsageError, match="did you mean 'imagenet'"):
        load_data(folder, COLOUR, preset="imagnet")
    with pytest.raises(UsageError, match="unknown field 'size'"):
        load_data(folder, COLOUR, preset="imagenet,size=3")
    with pytest.raises(UsageError, match="'big' is not a number for crop"):
        load_data(folder, COLOUR, preset="imagenet,crop=big")


@pytest.mark.parametrize(("name", "label_bytes"), [("test_batch.bin", 1), ("test.bin", 2)])
def test_cifar_records_are_read(tmp_path, name, label_bytes):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (5, 3, 32, 32), np.uint8), np.arange(5, dtype=np.uint8)
    coarse = np.full((5, label_bytes - 1), 9, np.uint8)
    records = np.concatenate([coarse, labels[:, None], images.reshape(5, -1)], axis=1)
    (tmp_path / name).write_bytes(records.tobytes())
    found = load_data(tmp_path, [InputSpec("x", (None, 3, 32, 32), FLOAT)], preset="raw").pool.samples()
    np.testing.assert_array_equal(found.inputs["x"], images)
    assert found.labels.tolist() == labels.tolist()
    (tmp_path / name).write_bytes(records.tobytes()[:-1])
    with pytest.raises(DataError, match="truncated"):
        load_data(tmp_path, [InputSpec("x", (None, 3, 32, 32), FLOAT)])


@pytest.mark.parametrize("packed", [False, True])
def test_idx_pair_is_read(tmp_path, packed):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
    files = {
        "t10k-images-idx3-ubyte": struct.pack(">IIII", 0x803, 4, 8, 8) + images.tobytes(),
        "t10k-labels-idx1-ubyte": struct.pack(">II", 0x801, 4) + bytes([3, 1, 4, 1]),
    }
    for name, content in files.items():
        path = tmp_path / (name + ".gz" * packed)
        path.write_bytes(gzip.compress(content) if packed else content)
    data = load_data(tmp_path, SPECS)
    found = data.pool.samples()
    np.testing.assert_allclose(found.inputs["image"][:, 0], images / np.float32(255), rtol=1e-6)
    assert found.labels.tolist() == [3, 1, 4, 1]
    assert "only divided by 255" in data.notes[0]


def test_idx_truncated_file_is_refused(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 4, 8, 8) + b"\0" * 10)
    with pytest.raises(DataError, match="not a complete IDX file"):
        load_data(tmp_path, SPECS)


def batches():
    for start in range(0, 12, 4):
        x, y = labelled(12)
        yield {"image": x[start : start + 4]}, y[start : start + 4]


def singles():
    x, y = labelled(12)
    yield from zip(x, y, strict=True)


def whole():
    return labelled(12)


def wrong():
    yield labelled(4)[0]


def failing():
    raise OSError("disk on fire")


@pytest.mark.parametrize("name", ["batches", "singles", "whole"])
def test_function_source_any_shape_of_items_same_samples(name):
    found = load_data(f"tests.accuracy.test_sources:{name}", SPECS).pool.samples()
    x, y = labelled(12)
    np.testing.assert_array_equal(found.inputs["image"], x)
    np.testing.assert_array_equal(found.labels, y)


@pytest.mark.parametrize(
    ("name", "words"), [("wrong", r"pair \(inputs, labels\)"), ("failing", "failed with OSError: disk on fire")]
)
def test_function_source_that_misbehaves_is_refused(name, words):
    with pytest.raises(DataError, match=words):
        load_data(f"tests.accuracy.test_sources:{name}", SPECS)


def test_function_source_that_does_not_exist_is_a_usage_error():
    with pytest.raises(UsageError, match="no module 'nowhere'"):
        load_data("nowhere:load", SPECS)


class Reader:
    def __init__(self) -> None:
        self.left = [{"image": labelled(8)[0]}, {"image": labelled(8)[0]}]

    def get_next(self):
        return self.left.pop() if self.left else None


def test_calibration_reader_is_drained():
    assert len(load_data(Reader(), SPECS).pool) == 16


def test_python_arrays_and_samples():
    x, y = labelled(8)
    for source in ({"image": x, "y": y}, {"x": x, "y": y}, Samples({"image": x}, y)):
        found = load_data(source, SPECS).pool.samples()
        np.testing.assert_array_equal(found.inputs["image"], x)
        np.testing.assert_array_equal(found.labels, y)
    with pytest.raises(DataError, match="data: a int; give"):
        load_data(3, SPECS)
