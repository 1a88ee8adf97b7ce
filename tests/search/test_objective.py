"""The real problem on a tiny network: units, menus, energies and measurements agree with each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwc_onnx.accuracy.reference import Reference, make_reference, with_baseline
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.candidate import build
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.plan import with_plan
from hwc_onnx.search.menus import front
from hwc_onnx.search.objective import Objective
from hwc_onnx.search.problem import Choices
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


def test_evaluate_hopeless_energy_stops_after_the_first_look(objective: Objective) -> None:
    full = objective.evaluate(objective.start)
    assert full.complete and full.n_samples == full.image_forwards == SEARCH
    short = objective.evaluate(objective.start, energy_limit=full.energy)
    assert (short.complete, short.n_samples, short.image_forwards) == (False, 256, 256)
    assert not short.accepted(1e9)
    assert short.damage == pytest.approx(full.damage, rel=1.0)


def test_evaluate_further_limits_are_relative_excesses(prepared: Prepared) -> None:
    limited = prepared.objective(max_energy=0.5, max_latency=1.0, max_bytes=100)
    outcome = limited.evaluate(limited.start)
    assert outcome.limits["energy"] == pytest.approx(1.0)
    assert outcome.limits["latency"] < 0.0 < outcome.limits["bytes"]
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
