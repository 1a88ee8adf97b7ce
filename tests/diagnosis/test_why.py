"""Leaving a layer out, trying remedies, and the plan that they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwc_onnx import api
from hwc_onnx.diagnosis.bench import Damage
from hwc_onnx.diagnosis.remedies import Remedy, Trial, best_of, merged_layers
from hwc_onnx.diagnosis.shares import alone, parts_of, tensors_read, with_input_bits, with_layer, without
from hwc_onnx.diagnosis.why import Why, why
from hwc_onnx.errors import PlanError, UsageError
from hwc_onnx.plan import CompressionPlan, LayerConfig, check_plan, group_bits
from hwc_onnx.quantization.ranges import METHODS
from hwc_onnx.report.console import tables_text
from hwc_onnx.report.why_table import short, why_tables
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import open_float_model
from tests import tiny_models
from tests.diagnosis.planted import FACTOR, inputs, looked_at, two_convolutions

GRAPH = open_float_model(tiny_models.residual()).graph


@pytest.fixture(scope="module")
def found() -> Why:
    return looked_at(two_convolutions(weight_factor=FACTOR), "w4a8")


@pytest.mark.parametrize("spec", ["w4a6", "w4a6,fine=magnitude:0.5", "w8a8,coarse=l1:0.5"])
def test_a_layer_alone_and_the_plan_without_it_share_nothing(spec: str) -> None:
    plan = uniform(GRAPH, parse_spec(spec))
    for layer in GRAPH.layers:
        one, rest = alone(GRAPH, plan, layer.key), without(GRAPH, plan, layer.key)
        check_plan(GRAPH, one)
        check_plan(GRAPH, rest)
        assert set(parts_of(GRAPH, one, layer.key)) == set(parts_of(GRAPH, plan, layer.key))
        assert parts_of(GRAPH, rest, layer.key) == []
        read = tensors_read(GRAPH, layer.key)
        for group, bits in zip(GRAPH.activation_groups, group_bits(GRAPH, rest), strict=True):
            if group.readers:
                assert (bits == 16) == bool(read & set(group.tensors))


def test_leaving_the_worst_layer_out_lowers_the_damage_of_the_plan(found: Why) -> None:
    worst = found.suspects[0]
    assert worst.key == "second"
    assert worst.left_out.damage < 0.5 * found.whole.damage
    assert worst.alone.damage == pytest.approx(found.whole.damage, rel=0.5)
    assert [s.alone.damage for s in found.suspects] == sorted((s.alone.damage for s in found.suspects), reverse=True)


def test_remedies_are_measured_and_the_best_is_in_the_plan_that_is_saved(found: Why, tmp_path: Path) -> None:
    worst = found.suspects[0]
    trials = {trial.remedy.name: trial for trial in worst.trials}
    assert trials["weights 8 bits"].damage.damage < 0.1 * worst.alone.damage
    assert trials["weights 8 bits"].energy is not None and trials["weights 8 bits"].energy > 1
    assert trials["leave in float"].damage.damage == 0
    assert worst.best is not None and worst.best.damage.damage <= 0.5 * worst.alone.damage
    assert worst.after.damage < found.whole.damage
    assert found.mended_damage.damage < found.whole.damage and found.mended_energy > 1
    path = found.save_plan(tmp_path / "better.json")
    saved = CompressionPlan.load(path)
    assert saved.layers["second"] == worst.best.remedy.plan.layers["second"]
    applied = api.apply_plan(two_convolutions(weight_factor=FACTOR), plan=path, data={"x": inputs()})
    assert applied.plan.layers == saved.layers


def test_best_remedy_is_the_cheapest_that_leaves_half_of_the_damage() -> None:
    plan = CompressionPlan.uniform(["a"], LayerConfig())

    def trial(name: str, damage: float, energy: float | None) -> Trial:
        return Trial(Remedy(name, None, "", plan), Damage(damage, 0.0, 0.0), energy)

    wide, float_, free = trial("wide", 0.3, 1.1), trial("float", 0.0, 1.5), trial("free", 0.45, None)
    assert best_of([float_, wide], 1.0) is wide
    assert best_of([float_, wide, free], 1.0) is free
    assert best_of([trial("a", 0.9, None), trial("b", 0.8, 1.2)], 1.0).remedy.name == "b"
    assert best_of([], 1.0) is None


def test_remedies_of_layers_that_share_a_tensor_go_together() -> None:
    plan = uniform(GRAPH, parse_spec("w4a6"))
    group = next(group for group in GRAPH.activation_groups if len(group.readers) > 1)
    first, second = group.readers[:2]
    wide = [with_input_bits(GRAPH, plan, first, 16), with_input_bits(GRAPH, plan, second, 7)]
    heavy = with_layer(plan, [second], weight_bits=8)
    for changes in ([*wide, heavy], [heavy, *wide[::-1]]):
        both = plan.model_copy(update={"layers": merged_layers(plan, changes)})
        check_plan(GRAPH, both)
        assert both.layers[first].activation_bits == both.layers[second].activation_bits == 16
        assert both.layers[second].weight_bits == 8 and both.layers[first].weight_bits == 4


def test_options_of_the_whole_plan_are_measured(found: Why) -> None:
    others = {f"--ranges {method}" for method in METHODS if method != "mse"}
    assert {item.change for item in found.planwide} == others | {"--recovery sequential"}
    unrepaired = looked_at(two_convolutions(), "w3a8", recovery="none")
    full = next(item for item in unrepaired.planwide if item.name == "recovery full")
    assert full.damage.damage < unrepaired.whole.damage
    assert unrepaired.mended.calibration.recovery in ("full", "sequential")
    assert unrepaired.mended_options == f"--recovery {unrepaired.mended.calibration.recovery}"
    assert unrepaired.mended_damage.damage <= full.damage.damage


def test_a_rebuilt_plan_is_looked_at_as_it_is_applied() -> None:
    """What a rebuilt plan loses is what its file loses; layers and remedies are compared with each layer by itself."""
    alone_ = looked_at(two_convolutions(), "w3a8")
    rebuilt = looked_at(two_convolutions(), "w3a8", recovery="sequential")
    sequential = next(item for item in alone_.planwide if item.name == "recovery sequential")
    assert rebuilt.whole == sequential.damage != alone_.whole
    assert rebuilt.by_layer == alone_.by_layer == alone_.whole
    changes = {item.change: item.damage for item in rebuilt.planwide}
    assert changes["--recovery full"] == rebuilt.by_layer and "--recovery sequential" not in changes
    shown, other = (" ".join(tables_text(why_tables(one.to_json())).split()) for one in (rebuilt, alone_))
    assert f"as it is (sequential) {short(rebuilt.whole.damage)}" in shown and "repaired by itself" in shown
    assert "repaired by itself" not in other


def test_where_no_remedy_helps_the_plan_is_kept() -> None:
    payload = looked_at(two_convolutions(), "w3a8", recovery="sequential").to_json()
    payload["mended"]["damage"] = payload["whole"]["damage"]
    assert "No remedy that was tried lowers the damage" in tables_text(why_tables(payload))
    payload["mended"]["damage"] = 0.5 * payload["whole"]["damage"]
    assert "--save-plan FILE writes" in tables_text(why_tables(payload))


def test_an_option_that_harms_the_whole_plan_is_no_layers_best() -> None:
    spiked = looked_at(two_convolutions(), "w16a4", inputs(spikes=True))
    harmful = {item.name for item in spiked.planwide if item.damage.damage >= spiked.whole.damage}
    assert harmful
    assert not harmful & {suspect.best.remedy.name for suspect in spiked.suspects if suspect.best is not None}


def test_pruned_layers_try_other_algorithms() -> None:
    pruned = looked_at(two_convolutions(), "w16a16,fine=magnitude:0.8")
    names = {trial.remedy.name for trial in pruned.suspects[0].trials}
    assert {"algorithm obs", "algorithm wanda", "no zeros"} <= names
    assert pruned.suspects[0].cause is not None and pruned.suspects[0].cause.name == "zeros"


def test_what_cannot_be_looked_at_is_refused() -> None:
    model, data = two_convolutions(), {"x": inputs()}
    with pytest.raises(UsageError, match="compresses no layer"):
        why(model, spec="w16a16", data=data, samples=64)
    with pytest.raises(UsageError, match="exclude one another"):
        why(model, spec="w8a8", plan=CompressionPlan(layers={}), data=data)
    with pytest.raises(UsageError, match="top 0"):
        why(model, top=0, data=data)
    with pytest.raises(UsageError, match="choose none, ranges, full, sequential"):
        why(model, recovery="some", data=data)
    with pytest.raises(PlanError, match="has no setting"):
        why(model, plan=CompressionPlan(layers={}), data=data)
