"""The real problem on a tiny network: units, menus, energies and measurements agree with each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwc_onnx.accuracy.reference import Reference, make_reference, with_baseline
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.candidate import build
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.errors import UsageError
from hwc_onnx.graph.constraints import Constraints
from hwc_onnx.limits import Limits
from hwc_onnx.plan import check_ratios, with_plan
from hwc_onnx.search import objective as objective_module
from hwc_onnx.search.layer_table import usual_ratios
from hwc_onnx.search.menus import front
from hwc_onnx.search.objective import Objective
from hwc_onnx.search.problem import Choices
from hwc_onnx.search.remembered import Remembered
from hwc_onnx.search.space import Space
from hwc_onnx.search.study import run_search
from hwc_onnx.workspace import Calibrated, Opened, calibrate, open_float_model
from tests import tiny_models

ALGORITHMS = ("obs", "magnitude", "l1", "reconstruct")
CALIBRATION, SEARCH = 100, 600


class Prepared:
    """What one network's objectives share."""

    def __init__(self, name: str) -> None:
        proto = tiny_models.ALL[name]()
        x = np.random.default_rng(0).standard_normal((CALIBRATION + SEARCH, 3, 8, 8)).astype(np.float32)
        y = tiny_models.run(proto, {"x": x})[0].argmax(axis=1)
        self.opened: Opened = open_float_model(proto)
        self.calibration = Samples({"x": x[:CALIBRATION]}, y[:CALIBRATION])
        self.calibrated: Calibrated = calibrate(self.opened, self.calibration, seed=0)
        self.cost_model = CostModel(load_profile("edge-flex"))
        search = Samples({"x": x[CALIBRATION:]}, y[CALIBRATION:])
        reference = make_reference(self.opened.proto, search, threads=1)
        baseline = build(self.opened.proto, self.opened.graph, self.calibrated.database, self.calibrated.baseline)
        self.reference: Reference = with_baseline(reference, baseline.proto)

    def objective(self, **changes) -> Objective:
        options = {"limit_points": 5.0, "baseline": self.calibrated.baseline, "algorithms": ALGORITHMS} | changes
        database = self.calibrated.database
        return Objective(self.opened.proto, self.opened.graph, database, self.cost_model, self.reference, **options)


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return Prepared("residual")


@pytest.fixture(scope="module")
def objective(prepared: Prepared) -> Objective:
    return prepared.objective()


def drawn(objective: Objective, count: int, channels: bool) -> list[Choices]:
    """Random canonical choices; without `channels` none leave."""
    space, rng = Space(objective.units), np.random.default_rng(1)
    found = []
    for _ in range(count):
        choices = rng.integers(0, space.sizes)
        for u, unit in enumerate(objective.units):
            if unit.kind == "channels" and not channels:
                choices[u] = objective.start[u]
        found.append(space.canonical(choices))
    return found


def summed(objective: Objective, choices: Choices) -> float:
    return sum(factor.energy(tuple(choices[list(factor.scope)].tolist())) for factor in objective.factors)


def test_units_are_in_network_order_with_mild_options_first(objective: Objective) -> None:
    layers = [layer.key for layer in objective._graph.layers]
    named = [unit.name for unit in objective.units if unit.kind == "layer"]
    assert named == [key for key in layers if key in named] and len(named) == len(layers)
    assert {unit.kind for unit in objective.units} == {"layer", "channels", "activation"}
    for unit, damage in zip(objective.units, objective.damage, strict=True):
        assert len(unit.options) == len(damage) > 1
        assert damage.min() == 0.0
        if unit.kind == "activation":
            assert [option.bits for option in unit.options] == sorted((o.bits for o in unit.options), reverse=True)
            assert np.all(np.diff(damage) >= 0.0)


def test_units_start_is_the_baseline_plan_with_energy_one(objective: Objective) -> None:
    plan = objective.plan_of(objective.start)
    assert plan.layers == objective.baseline.layers
    assert objective.energy(objective.start) == pytest.approx(1.0, rel=1e-9)
    assert summed(objective, objective.start) == pytest.approx(1.0, rel=1e-9)


def test_units_keep_the_ends_unless_they_are_free(prepared: Prepared, objective: Objective) -> None:
    searched = {unit.name for unit in objective.units if unit.kind == "activation"}
    free = {unit.name for unit in prepared.objective(first_last="free").units if unit.kind == "activation"}
    assert "x" not in searched and "x" in free and searched < free


def test_units_excluded_layers_keep_the_baseline(prepared: Prepared) -> None:
    part = prepared.objective(exclude=("y",), weight_bits=(4, 8))
    assert not any("y" in unit.layers for unit in part.units if unit.kind != "activation")
    for choices in drawn(part, 5, channels=True):
        layers = part.plan_of(choices).layers
        assert layers["y"].weight_bits == 8 and min(config.weight_bits for config in layers.values()) >= 4


def test_menus_hold_no_option_that_another_beats_clearly_at_both_widths(objective: Objective) -> None:
    for u, unit in enumerate(objective.units):
        if unit.kind != "layer":
            continue
        facts = objective._menus.facts[unit.name]
        energy = np.array([objective._costing.option_energy(unit.name, o, facts[o].density) for o in unit.options])
        allowed = front(energy, objective.damage[u], 0.15 + 1e-6)
        pruned = np.array([option.algorithm != "none" for option in unit.options])
        assert np.all(allowed[pruned])
        assert np.all(np.diff(energy) <= 1e-15)
        assert all(facts[option].exact for option in unit.options)


def test_layer_table_facts_are_the_entries_of_the_database(objective: Objective) -> None:
    table = objective._table
    facts = table.fine_options("t0")
    for option, fact in facts.items():
        exact = table.exact("t0", option)
        if fact.exact:
            assert fact == exact
        else:
            assert fact.density == pytest.approx(exact.density, abs=0.25)
    composed = [option for option, fact in facts.items() if not fact.exact]
    truth = np.array([table.exact("t0", option).error for option in composed])
    guess = np.array([facts[option].error for option in composed])
    assert np.corrcoef(np.log(guess + 1e-9), np.log(truth + 1e-9))[0, 1] > 0.9
    assert np.corrcoef(np.log(np.roll(guess, 7) + 1e-9), np.log(truth + 1e-9))[0, 1] < 0.9


def test_factors_add_up_to_the_energy(objective: Objective) -> None:
    for choices in drawn(objective, 8, channels=True):
        assert summed(objective, choices) == pytest.approx(objective.energy(choices), rel=1e-9)


def test_factors_with_a_scope_too_small_do_not_add_up(objective: Objective) -> None:
    """The broken twin: every factor forgets the last unit of its scope."""
    broken = [
        replace(factor, energy=lambda chosen, f=factor: f.energy((*chosen[:-1], 0)))
        for factor in objective.factors
        if factor.scope
    ]
    for choices in drawn(objective, 3, channels=True):
        total = sum(factor.energy(tuple(choices[list(factor.scope)].tolist())) for factor in broken)
        assert total != pytest.approx(objective.energy(choices), rel=1e-3)


def test_energy_before_measuring_is_exact_where_no_channels_leave_and_tensors_stay_at_8_bits(
    objective: Objective,
) -> None:
    """Narrower tensors change what the repair of a layer reads, so that a few weights more or fewer become zero."""
    for choices in drawn(objective, 4, channels=False):
        foretold = objective._costing.energy(choices)
        assert objective.evaluate(choices).energy == pytest.approx(foretold, rel=1e-3)
        for u, unit in enumerate(objective.units):
            if unit.kind == "activation":
                choices[u] = objective.start[u]
        foretold = objective._costing.energy(choices)
        outcome = objective.evaluate(choices)
        assert outcome.energy == pytest.approx(foretold, rel=1e-9)
        assert objective.energy(choices) == outcome.energy
        assert outcome.energy != pytest.approx(objective.energy(drawn(objective, 5, channels=False)[-1]), rel=1e-4)


def test_energy_with_channels_removed_is_close_before_and_exact_after(objective: Objective, prepared: Prepared) -> None:
    for choices in drawn(objective, 4, channels=True):
        foretold = objective._costing.energy(choices)
        outcome = objective.evaluate(choices)
        assert outcome.energy == pytest.approx(foretold, rel=0.02)
        assert objective.energy(choices) == outcome.energy
        stitched = prepared.calibrated.database.stitch(objective.plan_of(choices))
        whole = prepared.cost_model.cost(with_plan(prepared.opened.graph, stitched.plan)).total
        assert outcome.energy == pytest.approx(whole / objective._costing.baseline_total, rel=1e-12)


def test_recall_knows_the_energies_of_a_record_and_no_others(prepared: Prepared) -> None:
    objective = prepared.objective()
    first, second = drawn(objective, 2, channels=True)
    exact = [objective.evaluate(choices).energy for choices in (first, second)]
    foretold = [objective._costing.energy(choices) for choices in (first, second)]
    assert exact[0] != foretold[0] and exact[1] != foretold[1]
    objective.recall([first], [exact[0]])
    assert (objective.energy(first), objective.energy(second)) == (exact[0], foretold[1])
    objective.recall([], [])
    assert objective.energy(first) == foretold[0]


def test_evaluate_hopeless_energy_stops_after_the_first_look(objective: Objective) -> None:
    full = objective.evaluate(objective.start)
    assert full.complete and full.n_samples == full.image_forwards == SEARCH
    short = objective.evaluate(objective.start, energy_limit=full.energy)
    assert (short.complete, short.n_samples, short.image_forwards) == (False, 256, 256)
    assert not short.accepted(1e9)
    assert short.damage == pytest.approx(full.damage, rel=1.0)


def test_evaluate_further_limits_are_relative_excesses(prepared: Prepared) -> None:
    limited = prepared.objective(limits=Limits(energy=0.5, latency=1.0, bytes=100, memory=1e9))
    outcome = limited.evaluate(limited.start)
    assert outcome.limits["energy"] == pytest.approx(1.0)
    assert outcome.limits["latency"] < 0.0 < outcome.limits["bytes"]
    assert outcome.limits["memory"] == pytest.approx(outcome.figures["memory"] / 1e9 - 1.0)
    cost = prepared.cost_model.cost(with_plan(prepared.opened.graph, prepared.calibrated.baseline))
    assert outcome.figures["memory"] == cost.accelerator_bytes + cost.activation_bytes
    assert not outcome.accepted(100.0)
    assert limited.digests != prepared.objective().digests


def test_setup_forwards_count_calibration_reference_and_probes(prepared: Prepared, objective: Objective) -> None:
    layers = len([unit for unit in objective.units if unit.kind == "layer"])
    with_samples = prepared.objective(calibration_samples=prepared.calibration)
    assert with_samples.setup_forwards - objective.setup_forwards == CALIBRATION
    assert objective.setup_forwards == SEARCH + 192 * (layers + 1)


def test_search_of_the_real_problem_improves_on_its_seeds(prepared: Prepared) -> None:
    found = run_search(prepared.objective(), sampler="knapsack", trials=9)
    assert found.best is not None and found.best.outcome.accepted(5.0)
    assert found.best.outcome.energy < 0.9
    assert found.spent.image_forwards > found.history.image_forwards


def constrained_objective(prepared: Prepared, constraints: Constraints, **changes) -> Objective:
    opened = prepared.opened.under(constraints)
    calibrated = calibrate(opened, prepared.calibration, seed=0)
    options = {"limit_points": 5.0, "baseline": calibrated.baseline, "algorithms": ALGORITHMS} | changes
    return Objective(opened.proto, opened.graph, calibrated.database, prepared.cost_model, prepared.reference, **options)


def test_ratio_bounds_hold_for_every_choice(prepared: Prepared) -> None:
    layers = prepared.opened.graph.layers
    bounds = {layers[1].key: (0.3, 0.5), layers[2].key: (0.0, 0.3)}
    objective = constrained_objective(prepared, Constraints(ratios=bounds))
    space, rng = Space(objective.units), np.random.default_rng(2)
    seen: dict[str, set[float]] = {key: set() for key in bounds}
    for _ in range(200):
        plan = objective.plan_of(rng.integers(0, space.sizes))
        check_ratios(objective._graph, plan)
        for key in bounds:
            seen[key].add(plan.layers[key].ratio)
    assert min(seen[layers[1].key]) >= 0.3 and max(seen[layers[1].key]) == 0.5 and len(seen[layers[1].key]) > 1
    assert min(seen[layers[2].key]) == 0.0 and max(seen[layers[2].key]) == 0.3
    check_ratios(objective._graph, objective.plan_of(objective.start))
    assert objective.evaluate(objective.start).energy < 1.0


def test_ratio_bounds_are_met_by_removing_channels_where_nothing_else_may(prepared: Prepared) -> None:
    group = next(g for g in prepared.opened.graph.channel_groups if g.locked_because is None and len(g.producers) == 1)
    constraints = Constraints(ratios={group.producers[0]: (0.2, 0.5)})
    objective = constrained_objective(prepared, constraints, algorithms=("l1",))
    unit = next(unit for unit in objective.units if unit.kind == "channels" and unit.name == group.root)
    assert {option.algorithm for option in unit.options} == {"l1"}
    check_ratios(objective._graph, objective.plan_of(objective.start))
    with pytest.raises(UsageError, match="nothing that may be chosen"):
        constrained_objective(prepared, constraints, algorithms=())


def test_channels_go_for_all_that_make_them_where_one_cannot_be_pruned_otherwise(prepared: Prepared) -> None:
    """One producer of a group could lose weights by a pattern, the other only channels."""
    group = next(g for g in prepared.opened.graph.channel_groups if g.locked_because is None and len(g.producers) == 2)
    first, second = group.producers
    constraints = Constraints(ratios={first: (0.3, 0.6), second: (0.1, 0.4)})
    objective = constrained_objective(prepared, constraints, algorithms=("nm24", "l1"))
    space, rng = Space(objective.units), np.random.default_rng(4)
    for _ in range(40):
        check_ratios(objective._graph, objective.plan_of(rng.integers(0, space.sizes)))


def test_floor_that_keeps_a_lower_bound_from_being_met_is_named(prepared: Prepared) -> None:
    group = next(g for g in prepared.opened.graph.channel_groups if g.locked_because is None and len(g.producers) == 1)
    constraints = Constraints(ratios={group.root: (0.4, 0.6)}, min_channels={group.root: group.channels - 1})
    with pytest.raises(UsageError, match="nothing that may be chosen does that"):
        constrained_objective(prepared, constraints, algorithms=("l1",))


def test_a_single_width_is_taken_where_nothing_else_may_change(prepared: Prepared) -> None:
    objective = prepared.objective(algorithms=("l1",), weight_bits=(4, 4), activation_bits=(8, 8))
    plan = objective.plan_of(objective.start)
    weighted = [layer.key for layer in prepared.opened.graph.layers if layer.weight is not None]
    assert {plan.layers[key].weight_bits for key in weighted} == {4}
    found = run_search(objective, sampler="composite", trials=4, seed=0)
    assert len(found.history.records) >= 3


def test_fewest_channels_leave_shorter_menus(prepared: Prepared) -> None:
    free = [unit for unit in prepared.objective().units if unit.kind == "channels"]
    widest = max(group.channels for group in prepared.opened.graph.channel_groups)
    objective = constrained_objective(prepared, Constraints(min_channels={"*": widest}))
    assert free and not [unit for unit in objective.units if unit.kind == "channels"]


def test_ratios_to_choose_from_are_the_usual_ones_and_bounds_apart_from_them() -> None:
    usual = (0.4, 0.6, 0.75)
    assert usual_ratios(usual, 0.0, 0.95) == usual
    assert usual_ratios(usual, 0.0, 0.5) == (0.4, 0.5)
    assert usual_ratios(usual, 0.41, 0.62) == (0.41, 0.6)
    assert usual_ratios(usual, 0.1, 0.2) == (0.1, 0.2)
    assert usual_ratios(usual, 0.0, 0.0) == ()


def test_a_continued_run_does_not_measure_again_how_much_layers_matter(prepared: Prepared, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "probes.json"
    first = prepared.objective(remembered=Remembered(path))
    plain = prepared.objective()
    assert first.gains == plain.gains
    opened = []
    monkeypatch.setattr(objective_module, "open_session", lambda *_, **__: opened.append(1))
    again = prepared.objective(remembered=Remembered(path))
    assert again.gains == first.gains and opened == []
    assert again.setup_forwards == first.setup_forwards, "charged all the same"
    with pytest.raises(AttributeError):
        prepared.objective()  # the twin: without a memory it measures


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'{"a": "b"}', b'{"a": NaN}', b'{"a": 1' + b"0" * 400 + b"}", b"\xff"])
def test_a_damaged_memory_counts_as_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "probes.json").write_bytes(content)
    memory = Remembered(tmp_path / "probes.json")
    assert memory.get("a") is None
    assert memory.keep("a", 0.1 + 0.2) == Remembered(tmp_path / "probes.json").get("a") == 0.1 + 0.2


def test_a_memory_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    memory = Remembered(tmp_path / "none" / "probes.json")
    assert memory.keep("a", 1.0) == 1.0 == memory.get("a")


def test_plans_for_the_ladder_are_measured_to_the_end_where_others_stop(prepared: Prepared) -> None:
    """Two standard errors above the limit by all samples: too much to be accepted, not clearly too much for the gate. Nothing is refitted here."""
    objective = prepared.objective(limit_points=100.0)
    ended = []
    for choices in drawn(objective, 12, channels=True):
        objective.limit_points = 100.0
        whole = objective.evaluate(choices)
        objective.limit_points = whole.drop_points - 2.0 * whole.standard_error
        if objective.limit_points > 0.0:
            ended.append((objective.evaluate(choices).complete, objective.refit(choices).complete))
    searched, refitted = np.array(ended).T
    assert len(ended) >= 8 and searched.mean() < 0.5 < 0.8 < refitted.mean()
