"""Which normalisation a network wants is read off the network itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwc_onnx.accuracy.inputs import InputSpec, input_specs
from hwc_onnx.accuracy.likely_presets import NORMALISED, RAW, Way, for_channels, likely_presets, score, taken_by
from hwc_onnx.accuracy.presets import PRESETS, parse_preset
from hwc_onnx.accuracy.runner import open_session
from hwc_onnx.accuracy.synthetic_images import images
from hwc_onnx.accuracy.tensors import with_outputs
from hwc_onnx.workspace import open_float_model
from tests.tiny_models import Builder

ROOT = Path(__file__).parents[2]
MODELS = ("resnet20", "vgg_small", "mobilenetv2_small", "vit_tiny")


def benchmark():
    """benchmarks/synthetic.py as a module."""
    spec = importlib.util.spec_from_file_location("synthetic_benchmark", ROOT / "benchmarks" / "synthetic.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pixels(channels: int = 1, side: int = 28) -> np.ndarray:
    return images(8, channels, side, side, np.random.default_rng(0))


def guessed(model: onnx.ModelProto) -> tuple[str, ...]:
    proto = open_float_model(model).proto
    specs = input_specs(proto)
    return names(likely_presets(proto, specs, {specs[0].name: pixels()}, specs[0].name))


def names(ways: Sequence[Way]) -> tuple[str, ...]:
    assert sum(way.share for way in ways) == pytest.approx(1.0)
    return tuple(way.name for way in ways)


@pytest.mark.parametrize("preset", ["unit", "inception", "imagenet", "mnist", "raw"])
@pytest.mark.parametrize("name", MODELS)
def test_a_trained_networks_own_preset_is_among_the_likely_ones(name, preset):
    """The sample models, with a first layer that takes images prepared otherwise."""
    model = benchmark().prepared(onnx.load(ROOT / "sample_models" / f"{name}.onnx"), preset)
    found = guessed(model)
    assert preset in found
    assert set(found) <= set(RAW if preset == "raw" else NORMALISED)


@pytest.mark.parametrize("preset", ["unit", "inception", "imagenet", "mnist", "raw"])
def test_deep_networks_with_batch_normalization_leave_little_doubt(preset):
    found = [guessed(benchmark().prepared(onnx.load(ROOT / "sample_models" / f"{name}.onnx"), preset)) for name in MODELS[::2]]
    assert max(map(len, found)) <= 2


@pytest.mark.parametrize("preset", ["raw", "imagenet"])
def test_prepared_computes_the_same_from_images_in_the_other_preparation(preset):
    """The benchmark's oracle: the first layer gives equal values wherever its padding does not reach."""
    model = onnx.load(ROOT / "sample_models" / "resnet20.onnx")
    other = benchmark().prepared(onnx.load(ROOT / "sample_models" / "resnet20.onnx"), preset)
    layer = next(node.output[0] for node in model.graph.node if node.op_type == "Conv")
    outputs = []
    for proto, name in ((model, "fashion-mnist"), (other, preset)):
        spec = input_specs(proto)[0]
        way = for_channels(PRESETS[name], (8, 1, 28, 28))
        session = open_session(with_outputs(proto, [layer]), 1)
        outputs.append(session.run({"image": way.apply(pixels(), spec, "test")})[0][:, :, 1:-1, 1:-1])
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)


def test_a_division_inside_the_model_counts_as_raw_pixels():
    build = Builder(["n", 1, 28, 28])
    scaled = build.node("Div", build.node("Sub", "x", build.const(127.5)), build.const(58.0))
    x = build.conv(scaled, 1, 16)
    for _ in range(3):
        x = build.conv(build.node("Relu", x), 16, 16)
    model = build.finish(build.gemm(build.node("Flatten", build.node("GlobalAveragePool", x)), 16, 4))
    assert "raw" in guessed(model)


def test_without_a_model_or_a_layer_all_usual_presets_are_taken():
    build = Builder(["n", 1, 28, 28])
    model = build.finish(build.node("Relu", "x"))
    specs = input_specs(model)
    for given in (None, model):
        ways = likely_presets(given, specs, {"x": pixels()}, "x")
        assert names(ways) == NORMALISED and {way.share for way in ways} == {0.25}


def test_a_scalar_beside_the_image_does_not_stand_in_the_way():
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["c", "gain"], ["y"]),
    ]
    weight = np.random.default_rng(0).normal(0, 1 / 3, (8, 1, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 28, 28]),
            helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    inputs = {"image": pixels(), "gain": np.ones(8, np.float32)}
    assert set(names(likely_presets(model, input_specs(model), inputs, "image"))) <= set(NORMALISED)


@pytest.mark.parametrize("name", [*NORMALISED, *RAW])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_option_of_a_way_does_the_same(name, channels):
    spec = InputSpec("image", (None, channels, 28, 28), np.dtype(np.float32))
    way = Way(name, for_channels(PRESETS[name], (8, channels, 28, 28)), 1.0)
    given = parse_preset(way.option).apply(pixels(channels), spec, "test")
    np.testing.assert_allclose(way.preset.apply(pixels(channels), spec, "test"), given, rtol=1e-3, atol=0.1 if name in RAW else 1e-2)
    assert (way.option == name) == (channels == 3 or name not in ("imagenet", "caffe"))


def test_ways_are_taken_in_proportion_by_any_run_of_images():
    ways = [Way(name, PRESETS[name], share) for name, share in (("unit", 0.6), ("imagenet", 0.3), ("mnist", 0.1))]
    for first, count in ((0, 30), (17, 100), (900, 1000)):
        counts = np.bincount(taken_by(ways, np.arange(first, first + count)), minlength=3)
        assert np.abs(counts / count - [0.6, 0.3, 0.1]).max() < 3 / count
    assert (taken_by(ways[:1], np.arange(50)) == 0).all()


def test_score_is_least_for_layers_of_spread_one():
    plausible = [(1.0, 0.5)] * 6
    assert score(plausible) < score([(0.01, 80.0), *plausible]) < score([(0.01, 800.0), *plausible])
    assert score(plausible) < score([(60.0, 0.5), (30.0, 0.5), (8.0, 0.5), (3.0, 0.5), (2.0, 0.5), (1.5, 0.5)])
    assert score([]) == score([(0.0, 0.0)]) == float("inf")


def test_for_channels_takes_one_number_where_channels_are_not_three():
    grey = for_channels(PRESETS["imagenet"], (8, 1, 4, 4))
    assert grey.mean == (pytest.approx(0.449),) and len(grey.std) == 1
    assert for_channels(PRESETS["imagenet"], (8, 4, 4, 3)) == PRESETS["imagenet"]
