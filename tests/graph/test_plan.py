from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from hwc_onnx.errors import PlanError
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.parse import parse
from hwc_onnx.graph.pruned import BLOCK_SIZES, COARSE_ALGORITHMS, NM_PATTERNS, is_coarse, pattern_of
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import Achieved, CompressionPlan, LayerConfig, check_plan, group_bits, kept_count, with_plan
from hwc_onnx.pruning import table
from tests import tiny_models


def graph_of(name: str) -> LayerGraph:
    return parse(normalize(tiny_models.ALL[name]()))


def uniform(graph: LayerGraph, **setting: object) -> CompressionPlan:
    return CompressionPlan.uniform([layer.key for layer in graph.layers], LayerConfig(**setting))  # type: ignore[arg-type]


def changed(plan: CompressionPlan, key: str, **setting: object) -> CompressionPlan:
    return plan.model_copy(update={"layers": {**plan.layers, key: plan.layers[key].model_copy(update=setting)}})


@pytest.mark.parametrize(
    ("channels", "ratio", "lanes", "kept"),
    [
        (16, 0.0, 1, 16),
        (16, 0.5, 1, 8),
        (16, 0.95, 1, 1),
        (3, 0.95, 1, 1),
        (16, 0.3, 4, 12),
        (16, 0.95, 4, 4),
        (16, 0.5, 8, 8),
        (10, 0.05, 4, 8),
        (10, 0.0, 4, 10),
        (3, 0.9, 8, 3),
        (5, 0.5, 1, 3),
    ],
)
def test_kept_count_rounds_to_lanes_and_never_to_zero(channels: int, ratio: float, lanes: int, kept: int) -> None:
    assert kept_count(channels, ratio, lanes) == kept


def test_algorithm_tables_agree_with_the_pruning_table() -> None:
    assert set(table.COARSE) == COARSE_ALGORITHMS
    made = {name: table.algorithm(name) for name in table.FINE}
    assert NM_PATTERNS == {name: found.pattern for name, found in made.items() if found.pattern is not None}
    assert BLOCK_SIZES == {name: found.block for name, found in made.items() if found.block is not None}
    for name in (*table.FINE, *table.COARSE):
        assert is_coarse(name) == (table.granularity(name) == "coarse")


def test_plug_in_algorithm_says_itself_what_it_is() -> None:
    assert is_coarse(table.COARSE["l1"]) and not is_coarse(table.FINE["magnitude"])
    assert pattern_of(table.FINE["nm24"]) == (2, 4) and pattern_of(table.FINE["magnitude"]) is None


def test_with_plan_sets_widths_of_weights_inputs_and_outputs() -> None:
    graph = graph_of("chain")
    plan = changed(
        changed(uniform(graph, weight_bits=8, activation_bits=8), "t2", weight_bits=3, activation_bits=5),
        "y",
        activation_bits=6,
    )
    first, second, last = with_plan(graph, plan).layers
    assert (first.weight_bits, first.activation_bits, first.output_bits) == (8, 8, 5)
    assert (second.weight_bits, second.activation_bits, second.output_bits) == (3, 5, 8)
    assert (last.activation_bits, last.output_bits) == (6, 16)
    tensors = with_plan(graph, plan).tensors
    assert [tensors[name].bits for name in ("x", "t0", "t1", "t3", "t4", "t5", "y")] == [8, 16, 5, 8, 6, 6, 16]


def test_with_plan_float_everywhere_stores_nothing_narrow() -> None:
    graph = graph_of("residual")
    found = with_plan(graph, uniform(graph, weight_bits=16, activation_bits=16))
    assert {tensor.bits for tensor in found.tensors.values()} == {16}
    assert replace(found, layers=()) == replace(graph, layers=())
    assert found.layers == graph.layers


def test_with_plan_leaves_the_base_graph_alone() -> None:
    graph, other = graph_of("residual"), graph_of("residual")
    for ratio in (0.25, 0.5):
        plan = uniform(graph, weight_bits=4, activation_bits=4)
        for key in ("t0", "t4"):
            plan = changed(plan, key, algorithm="l1", ratio=ratio)
        with_plan(graph, plan)
    assert graph == other


def test_with_plan_without_records_forecasts_density_and_channels() -> None:
    graph = graph_of("chain")
    plan = changed(changed(uniform(graph), "t0", algorithm="l1", ratio=0.5), "t2", algorithm="magnitude", ratio=0.75)
    found = with_plan(graph, plan)
    assert found.layers[0].loop_dims.K == 4 and found.layers[1].loop_dims.C == 4
    assert found.layers[0].weight_shape == (4, 3, 3, 3) and found.tensors["t1"].shape == (1, 4, 8, 8)
    assert found.layers[1].weight_density == 0.25
    pattern = with_plan(graph, changed(uniform(graph), "t2", algorithm="nm24")).layers[1]
    assert (pattern.nm_pattern, pattern.weight_density, pattern.algorithm) == ((2, 4), 0.5, "nm24")


def test_with_plan_records_win_over_forecasts() -> None:
    graph = graph_of("chain")
    plan = changed(uniform(graph), "t0", algorithm="l1", ratio=0.5)
    records = {"t0": Achieved(weight_density=0.9, kept_channels=6), "t2": Achieved(weight_density=0.3)}
    plan = plan.model_copy(update={"achieved": records, "activation_density": {"t1": 0.4, "y": 0.7, "t4": 0.2}})
    found = with_plan(graph, plan)
    assert found.layers[0].loop_dims.K == 6
    assert [layer.weight_density for layer in found.layers] == [0.9, 0.3, 1.0]
    assert found.layers[1].activation_density == 0.4
    assert found.tensors["t5"].density == 0.2 and found.tensors["y"].density == 0.7


def test_with_plan_lanes_round_channels() -> None:
    graph = graph_of("chain")
    plan = changed(uniform(graph), "t2", algorithm="l2", ratio=0.4).model_copy(update={"lanes": 4})
    assert with_plan(graph, plan).layers[1].loop_dims.K == 8


def test_with_plan_depthwise_loses_groups() -> None:
    graph = graph_of("depthwise")
    plan = uniform(graph)
    for key in ("t2", "t4"):
        plan = changed(plan, key, algorithm="l1", ratio=0.25)
    found = with_plan(graph, plan)
    assert (found.layer("t4").loop_dims.G, found.layer("t4").loop_dims.K) == (12, 1)
    assert {node.key: node for node in found.nodes}["t4"].attributes["group"] == 12


def test_group_bits_product_of_activations_reads_two_fields() -> None:
    graph = graph_of("attention")
    plan = changed(uniform(graph), "t12", activation_bits=6, weight_bits=5)
    found = with_plan(graph, plan).layer("t12")
    assert (found.activation_bits, found.weight_bits) == (6, 5)


def test_check_plan_accepts_a_uniform_plan_on_every_model() -> None:
    for name in tiny_models.ALL:
        graph = graph_of(name)
        check_plan(graph, uniform(graph, weight_bits=4, activation_bits=4))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("residual", {"t7": {"activation_bits": 4}}, r"'t7' \(4 bits\) and 't10' \(8 bits\) both read tensor 't6'"),
        ("residual", {"t0": {"algorithm": "l1", "ratio": 0.5}}, r"'t0' \(l1 0.5\) and 't4' \(none 0\)"),
        (
            "residual",
            {"t0": {"algorithm": "l1", "ratio": 0.5}, "t4": {"algorithm": "l1", "ratio": 0.25}},
            "must lose the same channels",
        ),
        (
            "chain",
            {"y": {"algorithm": "l1", "ratio": 0.5}},
            "'y' cannot lose channels with 'l1': channels of `y` reach",
        ),
        ("attention", {"t12": {"algorithm": "magnitude", "ratio": 0.5}}, "'t12' multiplies two activations"),
    ],
)
def test_check_plan_impossible_setting_names_the_layers(
    name: str, settings: dict[str, dict[str, object]], words: str
) -> None:
    graph = graph_of(name)
    plan = uniform(graph)
    for key, setting in settings.items():
        plan = changed(plan, key, **setting)
    with pytest.raises(PlanError, match=words):
        check_plan(graph, plan)


def test_check_plan_missing_unknown_and_impossible_records_are_refused() -> None:
    graph = graph_of("chain")
    plan = uniform(graph)
    with pytest.raises(PlanError, match="'t9' is not in the model"):
        check_plan(graph, plan.model_copy(update={"layers": {**plan.layers, "t9": LayerConfig()}}))
    with pytest.raises(PlanError, match="'y' has no setting"):
        check_plan(graph, plan.model_copy(update={"layers": {key: plan.layers[key] for key in ("t0", "t2")}}))
    pruned = changed(plan, "t0", algorithm="l1", ratio=0.5)
    with pytest.raises(PlanError, match="keep 9 channels, but it has 8"):
        check_plan(graph, pruned.model_copy(update={"achieved": {"t0": Achieved(kept_channels=9)}}))


def test_group_bits_stored_tensor_without_reader_follows_the_model() -> None:
    graph = graph_of("residual")
    place = [group.tensor for group in graph.activation_groups].index("t9")
    assert group_bits(graph, uniform(graph, activation_bits=4))[place] == 8
    assert group_bits(graph, uniform(graph, activation_bits=16))[place] == 16


def test_with_plan_is_quick() -> None:
    graph = graph_of("residual")
    plans = [changed(uniform(graph), "t2", weight_bits=bits) for bits in range(2, 9)]
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for plan in plans:
            with_plan(graph, plan)
        best = min(best, (time.perf_counter() - started) / len(plans))
    assert best < 2e-3  # about 0.1 ms for 7 layers on an idle core; generous for a busy one


@pytest.mark.parametrize("field", ["ratio", "weight_density", "block_density"])
@pytest.mark.parametrize("value", ["-3", "5", "NaN", "Infinity"])
def test_recorded_shares_outside_0_to_1_are_refused(field: str, value: str) -> None:
    plan = CompressionPlan(layers={"a": LayerConfig(algorithm="block4", ratio=0.5)}, achieved={"a": Achieved(block_density=0.5)})
    text = plan.to_json()
    assert CompressionPlan.from_json(text) == plan
    spoilt = json.loads(text)
    spoilt["achieved"]["a"][field] = float(value)
    with pytest.raises(PlanError, match=f"achieved.a.{field}"):
        CompressionPlan.from_json(json.dumps(spoilt))
