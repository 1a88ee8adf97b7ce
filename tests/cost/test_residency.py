"""Which tensors stay on chip: the dynamic programme against trying every set of tensors."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.cost.residency import choose, free_steps
from hwc_onnx.cost.schedule import Schedule, Step
from hwc_onnx.cost.setting import FREE_STEPS

CAPACITY = 64


class Case:
    """A random chain: tensors with sizes and lifetimes, and what it saves a step when one of them stays.

    A tensor that stays never costs a step more; less free room never costs it less. Some pairs save together.
    """

    def __init__(self, seed, steps, tensors, capacity=CAPACITY):
        rng = np.random.default_rng(seed)
        self.capacity = capacity
        self.sizes = rng.integers(1, capacity + 8, tensors).tolist()
        self.life = [sorted(rng.integers(0, steps, 2).tolist()) for _ in range(tensors)]
        self.saving = rng.uniform(0, 3, (steps, tensors)) * (rng.random((steps, tensors)) < 0.5)
        self.pair = rng.uniform(0, 2, (tensors, tensors)) * (rng.random((tensors, tensors)) < 0.2)
        self.tightness = rng.uniform(0, 4, steps) * (rng.random(steps) < 0.7)
        self.steps = steps
        numbers = range(tensors)
        self.plan = Schedule(
            tuple(
                Step((i,), (), frozenset(), (), (), (), born(self, i, numbers), dying(self, i, numbers))
                for i in range(steps)
            ),
            tuple(f"t{i}" for i in numbers),
        )

    def energy(self, index, staying, free):
        spared = sum(self.saving[index, i] for i in staying)
        spared += sum(self.pair[i, j] for i, j in itertools.product(staying, repeat=2) if i != j)
        return 100.0 - spared + self.tightness[index] * (FREE_STEPS - free)

    def of_set(self, kept):
        """Energy when exactly these tensors stay for their whole lives, infinite if they do not fit."""
        total = 0.0
        for index in range(self.steps):
            alive = frozenset(i for i in kept if self.life[i][0] <= index <= self.life[i][1])
            used = sum(self.sizes[i] for i in alive)
            if used > self.capacity:
                return np.inf
            total += self.energy(index, alive, free_steps(self.capacity, used))
        return total

    def least(self):
        numbers = range(len(self.sizes))
        every = (kept for n in range(len(self.sizes) + 1) for kept in itertools.combinations(numbers, n))
        return min(self.of_set(kept) for kept in every)

    def first_come(self):
        """The broken twin: each tensor stays if it fits beside those before it."""
        kept = []
        for i in np.argsort([life[0] for life in self.life]).tolist():
            if np.isfinite(self.of_set([*kept, i])):
                kept.append(i)
        return self.of_set(kept)


def born(case, index, numbers):
    return tuple(i for i in numbers if case.life[i][0] == index)


def dying(case, index, numbers):
    return tuple(i for i in numbers if case.life[i][1] == index)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 6))
def test_choose_random_chains_equals_trying_every_set(seed, steps, tensors):
    case = Case(seed, steps, tensors)
    chosen = choose(case.plan, case.sizes, case.capacity, case.energy)
    assert chosen.energy == pytest.approx(case.least(), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6))
def test_choose_reports_the_set_and_room_that_give_its_energy(seed, steps, tensors):
    case = Case(seed, steps, tensors)
    chosen = choose(case.plan, case.sizes, case.capacity, case.energy)
    assert len(chosen.staying) == len(chosen.free) == steps
    kept = frozenset().union(*chosen.staying)
    assert case.of_set(kept) == pytest.approx(chosen.energy, rel=1e-12)
    again = sum(case.energy(i, *pair) for i, pair in enumerate(zip(chosen.staying, chosen.free, strict=True)))
    assert again == pytest.approx(chosen.energy, rel=1e-12)


def test_first_come_first_served_is_not_the_best_choice():
    cases = [Case(seed, 5, 5) for seed in range(20)]
    assert sum(case.first_come() > case.least() + 1e-9 for case in cases) >= 10


def test_choose_larger_memory_or_smaller_tensors_never_cost_more():
    for seed in range(30):
        case = Case(seed, 5, 5)
        usual = choose(case.plan, case.sizes, CAPACITY, case.energy).energy
        halved = [-(-size // 2) for size in case.sizes]
        assert choose(case.plan, halved, CAPACITY, case.energy).energy <= usual + 1e-9
        assert choose(case.plan, case.sizes, 2 * CAPACITY, case.energy).energy <= usual + 1e-9


def test_choose_without_capacity_keeps_nothing_and_leaves_all_room():
    case = Case(1, 4, 4)
    chosen = choose(case.plan, case.sizes, 0, lambda index, staying, free: 1.0)
    assert not any(chosen.staying)
    assert set(chosen.free) == {FREE_STEPS}


def test_free_steps_rounds_down_to_sixteenths():
    assert [free_steps(64, used) for used in (0, 1, 4, 5, 63, 64)] == [16, 15, 15, 14, 0, 0]
