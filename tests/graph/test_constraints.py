"""What constraints leave of a graph, of plans and of files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.errors import PlanError, UsageError
from hwc_onnx.graph.constraints import Constraints, _channels_for, constrained, constraints_of
from hwc_onnx.graph.layer_graph import FIXED, ChannelGroup, LayerGraph, Member
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import (
    Achieved,
    CompressionPlan,
    LayerConfig,
    channel_choice,
    check_plan,
    check_ratios,
    kept_of,
    with_plan,
)
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import open_float_model
from tests import tiny_models


def graph_of(name: str) -> LayerGraph:
    return parse(normalize(tiny_models.ALL[name]()))


def group_by(graph: LayerGraph, root: str) -> ChannelGroup:
    return next(group for group in graph.channel_groups if group.root == root)


def free_groups(graph: LayerGraph) -> list[ChannelGroup]:
    return [group for group in graph.channel_groups if group.locked_because is None]


@pytest.mark.parametrize("name", sorted(tiny_models.ALL))
def test_fewest_channels_hold_whatever_the_ratio(name: str) -> None:
    graph = graph_of(name)
    limited = constrained(graph, Constraints(min_channels={"*": 5}))
    plan = uniform(limited, parse_spec("w8a8,coarse=l1:0.95"))
    check_plan(limited, plan)
    left = with_plan(limited, plan)
    for layer in graph.layers:
        if layer.weight is not None:
            before, after = (found.weight_shape[found.output_axis] for found in (layer, left.layer(layer.key)))
            assert after >= min(5, before)
    # without the constraint some layer keeps fewer, so the one above is what held them
    free = with_plan(graph, uniform(graph, parse_spec("w8a8,coarse=l1:0.95")))
    assert not free_groups(graph) or any(
        layer.weight is not None and layer.weight_shape[layer.output_axis] < 5 for layer in free.layers
    )


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(-1, 5), min_size=1, max_size=24), st.integers(1, 30))
def test_group_channels_for_outputs_by_brute_force(index: list[int], outputs: int) -> None:
    """Positions of channel -1 stay anyway; of the others, those of any channels of the found number suffice."""
    channels = 6
    graph = graph_of("chain")
    layer = graph.layers[0]
    group = ChannelGroup("c", channels, (Member(layer.weight or "", layer.output_axis, tuple(index)),), (layer.key,), ())
    found = _channels_for(graph, group, layer, outputs)
    sizes = sorted(index.count(channel) for channel in range(channels))
    reached = [index.count(-1) + sum(sizes[:kept]) for kept in range(channels + 1)]
    enough = [kept for kept, total in enumerate(reached) if total >= outputs]
    assert found == (enough[0] if enough else channels)


def test_fewest_channels_of_a_layer_with_heads_counts_its_outputs() -> None:
    graph = graph_of("attention")
    heads = [group for group in free_groups(graph) if len(group.producers) == 3]
    outputs = graph.layer(heads[0].producers[0]).weight_shape[graph.layer(heads[0].producers[0]).output_axis]
    each = outputs // heads[0].channels
    assert each > 1
    for wanted, left in ((1, 1), (each, 1), (each + 1, 2), (outputs, heads[0].channels), (10 * outputs, heads[0].channels)):
        limited = constrained(graph, Constraints(min_channels={heads[0].producers[0]: wanted}))
        assert group_by(limited, heads[0].root).least_kept() == left


def test_keep_heads_locks_heads_and_nothing_else() -> None:
    graph = graph_of("attention")
    limited = constrained(graph, Constraints(keep_heads=True))
    for before, after in zip(graph.channel_groups, limited.channel_groups, strict=True):
        heads = before.locked_because is None and len(before.producers) == 3
        assert (after.locked_because != before.locked_because) == heads
        assert not heads or "attention heads" in (after.locked_because or "")
    for name in sorted(set(tiny_models.ALL) - {"attention"}):
        assert constrained(graph_of(name), Constraints(keep_heads=True)).channel_groups == graph_of(name).channel_groups


def test_floor_is_rounded_up_to_lanes() -> None:
    group = replace(free_groups(graph_of("chain"))[0], channels=16, parts=(), floor=5)
    assert [kept_of(group, 0.9, lanes) for lanes in (1, 4, 8, 32)] == [5, 8, 8, 16]
    fixed = replace(group, floor=0, parts=(FIXED,) * 3 + (0,) * 13)
    assert [kept_of(fixed, 0.95, lanes) for lanes in (1, 4)] == [4, 4]


@pytest.mark.parametrize("ratio", [0.2, 0.3, 0.38, 0.5, 0.77])
@pytest.mark.parametrize("name", ["chain", "concat", "residual", "flatten_gemm"])
def test_upper_bound_holds_for_the_channels_that_are_left(name: str, ratio: float) -> None:
    """Rounding to whole channels never removes more than the bound."""
    graph = graph_of(name)
    limited = constrained(graph, Constraints(ratios={"*": (0.0, ratio)}))
    notes: list[str] = []
    plan = uniform(limited, parse_spec("w8a8,coarse=l1:0.9"), note=notes.append)
    check_ratios(limited, plan)
    for group in free_groups(limited):
        assert {plan.layers[key].ratio for key in group.producers} == {ratio}
        assert group.channels - kept_of(group, ratio) <= ratio * group.channels + 1e-9
    assert any("instead of 0.9" in note for note in notes)


def test_uniform_moves_ratios_into_bounds_and_says_so() -> None:
    graph = graph_of("chain")
    keys = [layer.key for layer in graph.layers]
    bounds = {keys[0]: (0.0, 0.0), keys[1]: (0.6, 0.8)}
    limited = constrained(graph, Constraints(ratios=bounds))
    notes: list[str] = []
    plan = uniform(limited, parse_spec("w4a8,fine=magnitude:0.5"), note=notes.append)
    got = {key: (config.algorithm, config.ratio) for key, config in plan.layers.items()}
    assert got[keys[0]] == ("none", 0.0) and got[keys[1]] == ("magnitude", 0.6)
    assert set(list(got.values())[2:]) == {("magnitude", 0.5)}
    assert len(notes) == 2 and keys[0] in notes[0] and keys[1] in notes[1]
    pattern = uniform(limited, parse_spec("w4a8,fine=nm24"), note=notes.append)
    assert [pattern.layers[key].algorithm for key in keys[:3]] == ["none", "none", "nm24"]


def test_plan_outside_its_bounds_is_refused() -> None:
    graph = graph_of("chain")
    keys = [layer.key for layer in graph.layers]
    limited = constrained(graph, Constraints(ratios={keys[0]: (0.3, 0.6)}))

    def plan(**setting: object) -> CompressionPlan:
        layers = {**dict.fromkeys(keys, LayerConfig()), keys[0]: LayerConfig(**setting)}  # type: ignore[arg-type]
        return CompressionPlan(layers=layers)

    check_ratios(limited, plan(algorithm="magnitude", ratio=0.6))
    check_ratios(limited, plan(algorithm="nm24"))
    check_ratios(limited, plan().model_copy(update={"exclude": (keys[0],)}))
    for setting in ({}, {"algorithm": "none", "ratio": 0.5}, {"algorithm": "magnitude", "ratio": 0.7}):
        with pytest.raises(PlanError, match=r"its bounds are 0.3 to 0.6"):
            check_ratios(limited, plan(**setting))
    check_ratios(graph, plan())


def test_plans_without_bounds_need_no_patterns_and_floors_hold_beside_records() -> None:
    graph = graph_of("chain")
    keys = [layer.key for layer in graph.layers]
    plan = CompressionPlan.uniform(keys, LayerConfig()).model_copy(update={"include": ("nothing*",)})
    check_ratios(graph, plan)
    group = free_groups(graph)[0]
    pruned = {key: LayerConfig(algorithm="l1", ratio=0.5) for key in group.producers}
    plan = CompressionPlan(layers=dict.fromkeys(keys, LayerConfig()) | pruned)
    recorded = plan.model_copy(update={"achieved": {group.producers[0]: Achieved(kept_channels=group.channels // 2)}})
    limited = constrained(graph, Constraints(min_channels={"Conv": group.channels - 1}))
    for one in (plan, recorded):
        check_plan(limited, one)
        assert channel_choice(one, group_by(limited, group.root)) == group.channels - 1


def test_all_bounds_that_match_hold() -> None:
    graph = graph_of("chain")
    both = constrained(graph, Constraints(ratios={"*": (0.1, 0.6), "Conv": (0.2, 0.9)}))
    assert {layer.ratio_bounds for layer in both.layers if layer.op_type == "Conv"} == {(0.2, 0.6)}
    assert {layer.ratio_bounds for layer in both.layers if layer.op_type != "Conv"} == {(0.1, 0.6)}
    with pytest.raises(UsageError, match="no ratio is within both"):
        constrained(graph, Constraints(ratios={"*": (0.0, 0.3), "Conv": (0.4, 0.9)}))


def test_products_of_activations_have_nothing_to_limit() -> None:
    graph = graph_of("attention")
    product = next(layer.key for layer in graph.layers if layer.weight is None)
    with pytest.raises(UsageError, match="products of two activations only"):
        constrained(graph, Constraints(ratios={product: (0.0, 0.5)}))
    constrained(graph, Constraints(ratios={"*": (0.0, 0.5)}))


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"min_channels": 0}, "greater than or equal to 1"),
        ({"ratio_bounds": (0.5, 0.2)}, "the lower one comes first"),
        ({"ratio_bounds": {"Conv": (0.0, 0.99)}}, "less than or equal to 0.95"),
        ({"ratio_bounds": 0.5}, "ratio_bounds"),
    ],
)
def test_unreadable_constraints_are_refused(given: dict[str, object], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        constraints_of(**given)  # type: ignore[arg-type]


def test_plan_keeps_its_constraints_through_a_file(tmp_path) -> None:
    graph = graph_of("chain")
    constraints = constraints_of({"Conv": 4}, (0.0, 0.5), True)
    plan = uniform(constrained(graph, constraints), parse_spec("w8a8"), constraints=constraints)
    (tmp_path / "plan.json").write_text(plan.to_json())
    assert CompressionPlan.load(tmp_path / "plan.json") == plan
    assert CompressionPlan.load(tmp_path / "plan.json").constraints == constraints


def test_opened_model_under_constraints_computes_the_same() -> None:
    opened = open_float_model(tiny_models.ALL["chain"]())
    limited = opened.under(Constraints(min_channels={"*": 3}))
    assert limited.proto is opened.proto and limited.graph != opened.graph
    assert np.all([group.floor == 3 for group in limited.graph.channel_groups if group.channels > 3])
    assert opened.under(Constraints()).graph is opened.graph
