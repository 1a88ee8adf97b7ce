"""The energy that a plan foretells is the energy of the file written from it."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import with_plan
from tests import tiny_models
from tests.graph.written import random_plan, write

SAMPLES = sorted((Path(__file__).parents[2] / "sample_models").glob("*.onnx"))
MODELS = {name: CostModel(load_profile(name)) for name in list_profiles()}


def foretold_and_written(model, seed):
    """(graph, plan, the written file's graph)."""
    proto = normalize(model)
    graph = parse(proto)
    rng = np.random.default_rng([seed, len(graph.nodes)])
    written, plan = write(proto, graph, random_plan(graph, rng), rng)
    return graph, plan, parse(written)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", sorted(tiny_models.ALL))
def test_cost_of_plan_equals_cost_of_the_file_read_again(name, seed):
    assert_equal(*foretold_and_written(tiny_models.ALL[name](), seed))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_cost_of_a_sample_models_plan_equals_cost_of_the_file_read_again(path):
    assert len(SAMPLES) == 4
    assert_equal(*foretold_and_written(onnx.load(path), 0))


def assert_equal(graph, plan, reread):
    for model in MODELS.values():
        foretold, found = model.cost(with_plan(graph, plan)), model.cost(reread)
        assert found.total == pytest.approx(foretold.total, rel=1e-9)
        assert [node.total for node in found.nodes] == pytest.approx([node.total for node in foretold.nodes], rel=1e-9)
        assert found.accelerator_bytes == foretold.accelerator_bytes
        assert found.coverage_macs == foretold.coverage_macs


def test_cost_of_plan_with_one_density_or_width_changed_differs_from_the_file():
    """The broken twins: one weight more that is zero, one layer a bit narrower."""
    graph, plan, reread = foretold_and_written(tiny_models.ALL["chain"](), 0)
    model = MODELS["edge-flex"]
    total = model.cost_total(reread)
    key = graph.layers[0].key
    record = plan.achieved[key]
    fewer = record.weight_density - 1 / np.prod(graph.layers[0].weight_shape)
    sparser = plan.model_copy(
        update={"achieved": {**plan.achieved, key: record.model_copy(update={"weight_density": fewer})}}
    )
    config = plan.layers[key]
    narrower = plan.model_copy(
        update={"layers": {**plan.layers, key: config.model_copy(update={"weight_bits": config.weight_bits - 1})}}
    )
    for changed in (sparser, narrower):
        assert model.cost_total(with_plan(graph, changed)) != pytest.approx(total, rel=1e-9)
