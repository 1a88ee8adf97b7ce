"""The ladder that the gate climbs, against brute force over all ladders, and where a further step goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.search.gate import Judging
from hwc_onnx.search.goal import Goal
from hwc_onnx.search.guard import Guard
from hwc_onnx.search.history import CLOSING, Record
from hwc_onnx.search.ladder import LUCK, MIDDLE, SPREADS, Belief, Ladder, _margin
from tests.search.test_budget import history, outcome


def steps_of(energies: list[float], damages: list[float]) -> tuple[Record, ...]:
    """Plans from the safest on."""
    made = zip(sorted(energies, reverse=True), sorted(damages), strict=True)
    return tuple(
        Record(number, np.array([number]), replace(outcome(energy), damage=damage), "rollout", True, 0.0)
        for number, (energy, damage) in enumerate(made)
    )


def saved(front: Sequence[Record], borne: np.ndarray) -> float:
    """Mean energy saved by climbing, where the holdout bears so much damage of each plan, [n, steps]."""
    passed = np.logical_and.accumulate(np.array([step.outcome.damage for step in front]) <= borne, axis=1)
    energy = np.array([1.0, *(step.outcome.energy for step in front)])
    return float((passed @ -np.diff(energy)).mean())


def drawn(belief: Belief, steps: int, luck: float = LUCK, draws: int = 40_000) -> np.ndarray:
    """What the holdout may bear of each plan, [draws, steps]: a part that all share and luck of their own."""
    rng = np.random.default_rng(0)
    spread = np.array([s for _, s in SPREADS])[rng.choice(2, draws, p=[share for share, _ in SPREADS])]
    shared = np.sqrt(spread**2 - luck**2) * rng.normal(size=draws)
    own = luck * rng.normal(size=(draws, steps))
    found: np.ndarray = MIDDLE * belief.expected * np.exp(shared[:, None] + own)
    return found


def expected(front: Sequence[Record], belief: Belief) -> float:
    """The sum of the module's text."""
    damage = np.array([step.outcome.damage for step in front])
    energy = np.array([1.0, *(step.outcome.energy for step in front)])
    kept = np.cumprod([1.0, *np.diagonal(belief.together(damage), 1)])
    return float(-np.diff(energy) @ (belief.borne(damage) * kept)) if len(front) else 0.0


def test_the_sum_is_what_climbing_saves_in_the_mean() -> None:
    belief = Belief(0.02)
    front = steps_of([0.6, 0.55, 0.5, 0.4, 0.3, 0.25], [0.002, 0.014, 0.016, 0.018, 0.02, 0.03])
    climbing = saved(front, drawn(belief, 6))
    assert climbing == pytest.approx(expected(front, belief), abs=0.011), "only neighbours are taken together"
    assert saved(front[::3], drawn(belief, 2)) == pytest.approx(expected(front[::3], belief), abs=0.003)
    broken = Belief(0.03)  # the twin: another belief
    assert abs(climbing - expected(front, broken)) > 0.03
    assert saved(front, drawn(belief, 6, luck=0.0)) > climbing + 0.004, "a broken twin: without luck"


def test_of_two_plans_near_each_other_one_may_fail_alone() -> None:
    belief, damage = Belief(0.02), np.array([0.001, 0.016, 0.017])
    borne = drawn(belief, 3, draws=400_000) >= damage
    counted = (borne[:, :, None] & borne[:, None, :]).mean(axis=0) / borne.mean(axis=0)
    assert np.triu(belief.together(damage), 1) == pytest.approx(np.triu(counted, 1), abs=0.01)
    assert belief.together(damage)[0, 1] > 0.99 > 0.92 > belief.together(damage)[1, 2]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 4))
def test_no_other_ladder_is_expected_to_save_more(seed: int, size: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    front = steps_of(list(rng.uniform(0.1, 0.9, size)), list(rng.lognormal(-4.0, 1.0, size)))
    belief = Belief(0.02)
    numbers = [record.number for record in Ladder(front, (), belief).climbed(count)]
    assert len(numbers) <= count and numbers == sorted(numbers)
    best = max(expected(list(some), belief) for looks in range(min(count, size) + 1) for some in combinations(front, looks))
    assert expected([front[number] for number in numbers], belief) == pytest.approx(best)


def test_a_step_that_gains_little_and_may_fail_is_left_out() -> None:
    belief = Belief(0.02)
    front = steps_of([0.6, 0.42, 0.4, 0.1], [0.002, 0.0145, 0.015, 0.016])
    chosen = Ladder(front, (), belief).climbed(8)
    assert [step.outcome.energy for step in chosen] == [0.6, 0.1]
    assert saved(chosen, drawn(belief, 2)) > saved(front, drawn(belief, 4)) + 0.01


def test_steps_evenly_spread_save_less() -> None:
    """Broken twin: the order of magnitude of damage alone."""
    front = steps_of(list(np.linspace(0.9, 0.1, 60)), list(np.geomspace(1e-5, 0.05, 60)))
    belief = Belief(0.02)
    assert expected(front[::8][-8:], belief) < 0.97 * expected([front[r.number] for r in Ladder(front, (), belief).climbed(8)], belief)


def test_a_missing_step_goes_where_it_adds_most() -> None:
    belief = Belief(0.02)
    front = steps_of([0.6, 0.5, 0.2, 0.19], [0.001, 0.008, 0.018, 0.02])
    first = Ladder(front, (), belief).missing()[0]
    assert 0.008 < first < 0.018

    def worth(damage: float, part: float, low: float, high: float, after: float) -> float:
        passes = belief.borne(np.array([damage, after]))
        return float((high - low) * part * (passes[0] - passes[1]))

    gaps = [(0.001, 0.008, 0.6, 0.5), (0.008, 0.018, 0.5, 0.2), (0.018, 0.02, 0.2, 0.19)]
    all_worths = {
        low * (high / low) ** part: worth(low * (high / low) ** part, part, below, above, high)
        for low, high, above, below in gaps
        for part in np.linspace(0.1, 0.9, 9)
    }
    assert first == pytest.approx(max(all_worths, key=lambda damage: all_worths[damage]))


def test_next_to_a_plan_that_is_no_step_a_milder_one_is_tried() -> None:
    belief = Belief(0.016)
    front = steps_of([0.5, 0.2], [0.008, 0.02])
    beside = steps_of([0.3], [0.0127])
    assert 0.008 < Ladder(front, beside, belief).missing()[0] < 0.0127
    assert len(Ladder(front, (), belief, most=0.02).missing()) == 1


def test_a_step_beyond_the_last_goes_where_it_adds_most() -> None:
    belief, front = Belief(0.05), steps_of([0.6, 0.5, 0.4], [0.0025, 0.005, 0.01])
    beyond = [damage for damage in Ladder(front, (), belief).missing() if damage > 0.01]
    tried = 0.01 * 4.0 ** (np.arange(1, 11) / 10.0)
    # energy falls by 0.1 for each factor of two
    worth = 0.1 * np.log2(tried / 0.01) * belief.borne(tried)
    assert beyond == [pytest.approx(tried[worth.argmax()])] and worth.argmax() not in (0, 9)
    assert Ladder(front, (), belief, most=0.02).missing()[0] <= 0.02
    assert all(damage < 0.01 for damage in Ladder(front, (), belief, most=0.01).missing())
    safe = Belief(0.002)  # a broken twin: where the last step is expected to fail, none goes beyond first
    assert Ladder(front, (), safe).missing()[0] < 0.01


@pytest.mark.parametrize(
    ("holdout", "gate", "margin"),
    [(10_000, None, 0.3 * 1.645 * 0.2), (400, None, 0.3 * 1.645), (200, None, 0.0), (200, "upper", 0.3 * 1.645 * 2**0.5), (10_000, "point", 0.0)],
)
def test_the_gate_s_margin_is_that_of_its_bound_on_so_many_samples(holdout: int, gate: str | None, margin: float) -> None:
    """200 samples would make the bound wider than half the limit, where the gate asks for the drop as measured, unless it was asked for the bound."""
    assert _margin(Judging(holdout, gate), [], 0.3, 400, 1.0) == pytest.approx(margin, abs=1e-4)


def test_a_large_holdout_bears_more_than_the_search_samples_accept() -> None:
    found = history([replace(outcome(e, drop=d), damage=0.02 * d, n_samples=400) for e, d in zip(np.linspace(0.9, 0.4, 9), np.linspace(0.2, 1.4, 9), strict=True)])
    beliefs = [Ladder.of(found, judging=Judging(n) if n else None).belief.expected for n in (0, 1000, 10_000)]
    assert beliefs[0] < beliefs[2] and beliefs[1] < beliefs[2]
    assert Ladder.of(found).most >= beliefs[2]
    asked = [Ladder.of(found, judging=Judging(20, gate)).belief.expected for gate in ("upper", "point", None)]
    assert asked[0] < beliefs[1] < asked[1] == asked[2]


def test_few_trials_near_the_limit_do_not_make_its_error_nothing() -> None:
    found = history([replace(outcome(e, drop=d), damage=0.02 * d) for e, d in ((0.9, 0.1), (0.8, 0.15), (0.7, 0.2))])
    ladder = Ladder.of(found, judging=Judging(10_000))
    assert ladder.most > 1.05 * ladder.belief.expected


@pytest.mark.parametrize("accepted", [False, True])
def test_where_no_plan_keeps_all_limits_those_that_come_nearest_are_judged(accepted: bool) -> None:
    """From the safest on, so that the gate finds the nearest that passes: INT8 misses the second limit by far more."""
    drops = {0.7: 0.15, 0.55: 0.3, 0.5: 0.4, 0.46: 0.55, 0.44: 0.6, 0.41: 0.45, 0.39: 1.35, 0.37: 1.45, 0.3: 2.2}
    tried = [replace(outcome(e, drop=d), damage=0.04 * d, standard_error=0.5, limits={"bytes": e / 0.4 - 1.0}) for e, d in drops.items()]
    if accepted:
        tried.append(replace(outcome(0.4, drop=0.2), damage=0.008, standard_error=0.2, limits={"bytes": 0.0}))
    found = history([replace(outcome(1.0), limits={"bytes": 1.5}), *tried])
    start = found.records[0].choices
    finalists = Goal(1.0).finalists(found, 8, start, Judging(10_000))
    assert [record.outcome.energy for record in finalists] == ([0.4] if accepted else [0.7, 0.55, 0.41, 0.39]) + [0.37]
    assert all(record is found.records[record.number] for record in finalists)
    assert len(Goal(1.0).finalists(found, 2, start, None)) == 2


def test_plans_that_keep_the_other_limits_are_told_apart_by_energy() -> None:
    """None is accepted, all being unsure: of two that do the same damage the one of less energy is judged, not that of fewer bytes."""
    tried = [(0.5, 0.3, -0.1), (0.4, 0.31, -0.05), (0.45, 0.5, -0.5)]
    unsure = [replace(outcome(e, drop=d), damage=0.04 * d, standard_error=0.9, limits={"bytes": excess}) for e, d, excess in tried]
    found = history([replace(outcome(1.0), limits={"bytes": 1.5}), *unsure])
    assert [record.outcome.energy for record in Goal(1.0).finalists(found, 8, found.records[0].choices, None)] == [0.5, 0.4]


def test_nothing_is_missing_between_plans_of_the_same_energy() -> None:
    assert Ladder(steps_of([0.3], [0.01]), (), Belief(0.02)).missing() == []
    assert Ladder((), (), Belief(0.02)).missing() == []


def test_steps_are_those_that_no_other_beats_and_that_should_keep_the_limit() -> None:
    rng = np.random.default_rng(3)
    measured = [outcome(float(e), drop=float(d)) for e, d in rng.uniform(0.05, 1.3, (40, 2))]
    measured += [outcome(0.01, drop=0.01, limits={"bytes": 0.1}), outcome(0.01, drop=0.01, complete=False)]
    found = history([replace(one, damage=0.02 * one.drop_points) for one in measured])
    ladder = Ladder.of(found)
    drops = {r.number: r.outcome.drop_points for r in found.records[:40] if r.outcome.drop_points <= 1.0}
    brute = {
        n
        for n in drops
        if not any(drops[o] <= drops[n] and measured[o].energy <= measured[n].energy and o != n for o in drops)
    }
    assert {step.number for step in ladder.steps} == brute
    assert [step.outcome.energy for step in ladder.steps] == sorted((step.outcome.energy for step in ladder.steps), reverse=True)
    assert any(not step.outcome.accepted(1.0) for step in ladder.steps), "none without the search's margin"
    without = Ladder.of(found, ladder.steps[0].choices)
    assert ladder.steps[0].number not in {step.number for step in without.steps}


def test_bad_luck_on_the_search_samples_is_bad_luck() -> None:
    """Two plans of the same damage, one with a larger drop: half of what they differ by is not believed."""
    found = history([replace(outcome(0.5, drop=d), damage=x) for d, x in ((0.2, 0.01), (0.4, 0.02), (0.6, 0.03))])
    guard = Guard([record.outcome for record in found.records], 1.0)
    guard.reliability = 0.5
    unlucky = replace(outcome(0.4, drop=0.8), damage=0.02)
    assert 0.4 < guard.likely_drop(unlucky) < 0.7 < guard.accepted_drop(unlucky) == 0.8
    lucky = replace(outcome(0.4, drop=0.1, contrasts=(0.1,) * 6), damage=0.02)
    assert guard.likely_drop(lucky) == pytest.approx(guard.accepted_drop(lucky))


def test_expected_energy_of_a_ladder_is_the_mean_over_what_the_holdout_may_bear() -> None:
    found = history([replace(outcome(e, drop=d), damage=x) for e, d, x in ((0.8, 0.3, 0.01), (0.6, 0.6, 0.02), (0.4, 0.9, 0.04))])
    ladder = Ladder.of(found)
    assert len(ladder.steps) == 3
    rng = np.random.default_rng(0)
    share, spread = np.array(SPREADS).T
    wide = spread[(rng.random(400_000) > share[0]).astype(int)]
    borne = MIDDLE * ladder.belief.expected * np.exp(wide * rng.normal(size=len(wide)))
    reached = np.ones(len(borne))
    for step in ladder.steps:
        reached[borne >= step.outcome.damage] = step.outcome.energy
    assert ladder.expected(ladder.belief) == pytest.approx(reached.mean(), abs=2e-3)
    assert abs(ladder.steps[-1].outcome.energy - reached.mean()) > 0.02, "a broken twin: that all pass"


@pytest.mark.parametrize("part", [2.0, 1.0, 0.5])
def test_the_belief_listens_to_what_refitted_plans_cost(part: float) -> None:
    """Plans of the search lose 40 points per unit of damage. Refitted ones that lose `part` of that draw the belief half of the way, as logarithms;
    far milder ones tell nothing.
    """
    plain = [replace(outcome(e, drop=d), damage=d / 40.0) for e, d in zip(np.linspace(0.9, 0.4, 9), np.linspace(0.2, 1.4, 9), strict=True)]
    whole = history(plain)
    before = Ladder.of(whole)
    for number, share in enumerate((0.1, 0.8, 1.2)):
        damage = before.belief.expected * share
        refitted = replace(outcome(0.3, drop=part * 40.0 * damage if number else 9.0), damage=damage, complete=number < 2)
        whole.append(Record(100 + number, np.array([number, 99]), refitted, CLOSING, True, 0.0))
        if not number:
            assert Ladder.of(whole).belief == before.belief
    after, drop = Ladder.of(whole), 40.0 * before.belief.expected
    heard = np.sqrt((drop + 0.3) / (part * drop + 0.3))
    assert after.belief.expected / before.belief.expected == pytest.approx(heard, rel=0.05)
    assert after.most / before.most == pytest.approx(after.belief.expected / before.belief.expected)
    if part != 1.0:
        broken = (drop + 0.3) / (part * drop + 0.3)  # the twin: all of the way
        assert after.belief.expected / before.belief.expected != pytest.approx(broken, rel=0.1)


@pytest.mark.parametrize("missed", [0.5, 0.0])
def test_a_plan_that_keeps_a_limit_which_int8_misses_is_judged_whatever_it_saves(missed: float) -> None:
    start = replace(outcome(1.0), limits={"bytes": missed})
    found = history([start, replace(outcome(1.02, drop=0.2), damage=0.004, limits={"bytes": -0.1})])
    finalists = Goal(1.0).finalists(found, 8, found.records[0].choices, Judging(10_000))
    assert [record.number for record in finalists] == ([1] if missed else [])
