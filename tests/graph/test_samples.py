"""The three equalities on every sample model: forecast = written file, removed = masked, normalized = original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from hwc_onnx.graph.infer import run_for
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.loading import load_model
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import with_plan
from hwc_onnx.rewrite.mask_channels import mask_channels
from hwc_onnx.rewrite.remove_channels import remove_channels
from tests.graph.test_plan_equals_file import facts
from tests.graph.written import random_plan, write

SAMPLES = sorted((Path(__file__).parents[2] / "sample_models").glob("*.onnx"))


@pytest.fixture(scope="module", params=SAMPLES, ids=lambda path: path.stem)
def sample(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, onnx.ModelProto, LayerGraph]:
    proto = load_model(request.param).proto
    normal = normalize(proto)
    return proto, normal, parse(normal)


def outputs(proto: onnx.ModelProto, batch: int = 4) -> np.ndarray:
    image = np.random.default_rng(0).standard_normal((batch, 1, 28, 28)).astype(np.float32)
    values = run_for(proto, {"image": image}, ["logits"])
    assert values is not None
    return values["logits"]


def test_sample_normalized_computes_the_same(sample: tuple[onnx.ModelProto, onnx.ModelProto, LayerGraph]) -> None:
    proto, normal, graph = sample
    np.testing.assert_allclose(outputs(normal), outputs(proto), rtol=1e-4, atol=1e-4)
    kinds = {node.op_type for node in graph.nodes}
    assert not kinds & {"Constant", "Identity", "BatchNormalization", "Shape", "Gather", "Unsqueeze"}
    assert graph.unmodelled == ()


def test_sample_removed_channels_equal_masked_channels(
    sample: tuple[onnx.ModelProto, onnx.ModelProto, LayerGraph],
) -> None:
    _, normal, graph = sample
    rng = np.random.default_rng(1)
    keep = {
        group.root: np.sort(rng.choice(group.channels, group.channels * 5 // 8, replace=False))
        for group in graph.channel_groups
        if group.locked_because is None
    }
    assert len(keep) >= 4
    removed, masked = remove_channels(normal, graph, keep), mask_channels(normal, graph, keep)
    np.testing.assert_allclose(outputs(removed), outputs(masked), rtol=1e-5, atol=1e-5)


def test_sample_forecast_equals_written_file(sample: tuple[onnx.ModelProto, onnx.ModelProto, LayerGraph]) -> None:
    _, normal, graph = sample
    rng = np.random.default_rng(2)
    written, plan = write(normal, graph, random_plan(graph, rng), rng)
    foretold, found = facts(with_plan(graph, plan)), facts(parse(written))
    for part, value in foretold.items():
        assert found[part] == value, part
