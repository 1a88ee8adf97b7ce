from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import InputSpec, input_specs
from hwc_onnx.accuracy.likely_presets import NORMALISED, for_channels, likely_presets, taken_by
from hwc_onnx.accuracy.presets import PRESETS
from hwc_onnx.accuracy.synthetic_images import dead_leaves, fractal_noise, images, plain_scene
from hwc_onnx.errors import DataError

FLOAT = np.dtype(np.float32)


def spectrum_slope(pictures: np.ndarray) -> float:
    """Slope of log amplitude over log frequency, averaged over pictures [N, rows, columns]."""
    side = pictures.shape[-1]
    amplitude = np.abs(np.fft.fft2(pictures - pictures.mean(axis=(1, 2), keepdims=True))).mean(axis=0)
    fy, fx = np.meshgrid(np.fft.fftfreq(side) * side, np.fft.fftfreq(side) * side, indexing="ij")
    radius = np.hypot(fy, fx)
    inner = (radius >= 2) & (radius <= side / 3)
    return float(np.polyfit(np.log(radius[inner]), np.log(amplitude[inner]), 1)[0])


def test_images_spectrum_falls_like_a_photographs():
    made = images(64, 1, 64, 64, np.random.default_rng(0))[:, 0] / 255
    assert -1.7 < spectrum_slope(made) < -0.7


def test_white_noise_fails_the_spectrum_oracle():
    """Broken twin."""
    assert spectrum_slope(np.random.default_rng(0).random((64, 64, 64))) > -0.3


def test_images_channels_are_correlated_and_contrast_is_real():
    made = images(32, 3, 32, 32, np.random.default_rng(0)).astype(float)
    correlations = [np.corrcoef(one.reshape(3, -1))[0, 1] for one in made]
    assert np.median(correlations) > 0.5
    assert made.std(axis=(1, 2, 3)).min() > 5


def test_fractal_noise_stays_in_range():
    made = fractal_noise(4, 3, 20, 24, np.random.default_rng(0))
    assert made.shape == (4, 3, 20, 24)
    assert (made.min() >= 0) and (made.max() <= 1)


@pytest.mark.parametrize("shape", [(None, 1, 28, 28), (None, 3, 20, 12), (None, 16, 16, 3), (1, 8, 9, 9)])
def test_synthetic_images_fit_the_model_in_a_normalised_range(shape):
    data = load_data("synthetic:96", [InputSpec("image", shape, FLOAT)])
    found = data.pool.samples().inputs["image"]
    assert found.shape == (96, *shape[1:])
    # all usual ways in turn: from 0..1 to the mean and spread of training images
    assert -2.2 < found.min() < -1.7 and 2.0 < found.max() < 2.9
    assert 0.3 < found.std() < 1.5
    assert not data.real and data.pool.labels is None


def test_synthetic_preset_sets_the_range():
    found = load_data("synthetic:64", [InputSpec("image", (None, 3, 16, 16), FLOAT)], preset="raw").pool.samples()
    assert 128 < found.inputs["image"].max() <= 255
    assert found.inputs["image"].min() >= 0


def test_synthetic_images_take_the_likely_presets_by_their_number():
    data = load_data("synthetic:64", [InputSpec("image", (None, 1, 16, 16), FLOAT)])
    raw = load_data("synthetic:64", [InputSpec("image", (None, 1, 16, 16), FLOAT)], preset="unit").pool.samples()
    pixels = np.rint(raw.inputs["image"] * 255).astype(np.uint8)
    some = np.array([3, 0, 17, 62])
    taken = data.pool.samples(some).inputs["image"]
    ways = likely_presets(None, data.pool.specs, {"image": pixels}, "image")
    for row, place, way in zip(taken, some, taken_by(ways, some), strict=True):
        preset = for_channels(PRESETS[NORMALISED[way]], pixels.shape)
        np.testing.assert_array_equal(row, preset.apply(pixels[place][None], data.pool.specs[0], "test")[0])
    assert "suggest unit or inception or unit,mean=0.449,std=0.226 or mnist: say which with --preset" in data.notes[0]
    colour = load_data("synthetic:64", [InputSpec("image", (None, 3, 16, 16), FLOAT)])
    assert "suggest unit or inception or imagenet or mnist: say which with --preset" in colour.notes[0]


def test_synthetic_notes_do_not_guess_where_a_preset_or_the_file_says():
    spec = InputSpec("image", (None, 1, 16, 16), FLOAT)
    assert not load_data("synthetic:64", [spec], preset="mnist").notes
    assert not load_data("synthetic:64", [spec], stored=PRESETS["unit"].to_dict()).notes
    assert not load_data("synthetic:64", [InputSpec("image", (None, 1, 16, 16), np.dtype(np.uint8))]).notes


@pytest.mark.parametrize(("shape", "unit"), [((None, 3, 8, 8), "images"), ((None, 16000), "samples"), ((None, 1, 90), "samples")])
def test_synthetic_samples_are_called_what_they_are(shape, unit):
    assert load_data("synthetic:64", [InputSpec("x", shape, FLOAT)]).unit == unit


def test_plain_scenes_have_flat_backgrounds_up_to_black_and_white():
    rng = np.random.default_rng(0)
    texture = fractal_noise(1, 1, 32, 32, rng)[0, 0]
    scenes = np.stack([plain_scene(1, 32, 32, rng, texture) for _ in range(60)])
    flat = [np.unique(scene, return_counts=True) for scene in scenes]
    background = np.array([values[counts.argmax()] for values, counts in flat])
    assert (background == 0).any() and (background == 1).any() and ((background > 0.1) & (background < 0.9)).any()
    assert np.median([counts.max() / 32**2 for _, counts in flat]) > 0.25
    leaves = np.stack([dead_leaves(1, 32, 32, rng, texture) for _ in range(20)])
    # broken twin
    assert np.median([np.unique(leaf, return_counts=True)[1].max() / 32**2 for leaf in leaves]) < 0.25


@pytest.mark.parametrize("shape", [(130, 2, 500), (130, 64, 3), (130, 7), (200, 1, 81)])
def test_synthetic_signals_have_unit_variance_and_do_not_depend_on_blocks(shape):
    spec = InputSpec("x", (None, *shape[1:]), FLOAT)
    made = load_data(f"synthetic:{shape[0]}", [spec], seed=3).pool.samples().inputs["x"]
    assert made.std() == pytest.approx(1.0, abs=0.1)
    fewer = load_data("synthetic:70", [spec], seed=3).pool.samples().inputs["x"]
    np.testing.assert_array_equal(fewer, made[:70])


def test_synthetic_same_seed_same_samples():
    specs = [InputSpec("image", (None, 1, 16, 16), FLOAT)]
    digests = [load_data("synthetic:64", specs, seed=seed).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_synthetic_indices_stay_within_the_table_and_masks_are_ones():
    table = helper.make_tensor("table", TensorProto.FLOAT, [37, 4], np.zeros(148, np.float32))
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "wide"], ["rows"]),
            helper.make_node("Identity", ["attention_mask"], ["mask"]),
        ],
        "g",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT32, ["n", 6]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["n", 6]),
            helper.make_tensor_value_info("waves", TensorProto.FLOAT, ["n", 2, 50]),
        ],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 6, 4])],
        [table],
    )
    model = helper.make_model(graph)
    found = load_data("synthetic:200", input_specs(model), model=model).pool.samples().inputs
    assert found["ids"].dtype == np.int32
    assert (found["ids"].min(), found["ids"].max()) == (0, 36)
    assert (found["attention_mask"] == 1).all()
    waves = found["waves"]
    assert np.mean(waves[:, :, 1:] * waves[:, :, :-1]) > 0.2


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float16])
def test_synthetic_values_have_the_declared_type(dtype):
    spec = InputSpec("x", (None, 1, 12, 12), np.dtype(dtype))
    assert load_data("synthetic:64", [spec]).pool.samples().inputs["x"].dtype == dtype


def test_synthetic_open_size_asks_for_a_shape():
    spec = InputSpec("image", (None, 3, None, None), FLOAT)
    with pytest.raises(DataError, match=r"open sizes; give --input-shape image:1x3x\?x\? with a size for each"):
        load_data("synthetic", [spec])
    found = load_data("synthetic:64", [spec], input_shapes={"image": (1, 3, 10, 14)}).pool.samples()
    assert found.inputs["image"].shape == (64, 3, 10, 14)


def test_synthetic_count_must_be_a_number():
    with pytest.raises(DataError, match="'many' is not a number of samples"):
        load_data("synthetic:many", [InputSpec("x", (None, 4), FLOAT)])
