from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.errors import SearchError
from hwc_onnx.search.menus import front, menu
from hwc_onnx.search.problem import Option, Unit
from hwc_onnx.search.space import Space
from tests.search.synthetic import SyntheticProblem

PROBLEM = SyntheticProblem(layers=6, images=64)


def test_canonical_pruned_group_unprunes_its_producers_at_the_same_width() -> None:
    space = Space(PROBLEM.units)
    choices = space.canonical(PROBLEM.start)
    group = next(u for u, unit in enumerate(PROBLEM.units) if unit.kind == "channels")
    layer = space.producers[group][0]
    pruned = next(o for o, option in enumerate(PROBLEM.units[layer].options) if option.algorithm == "obs")
    choices[layer] = pruned
    assert PROBLEM.units[layer].options[space.canonical(choices)[layer]].algorithm == "obs"
    choices[group] = 1
    read = PROBLEM.units[layer].options[space.canonical(choices)[layer]]
    assert read.algorithm == "none"
    assert read.bits == PROBLEM.units[layer].options[pruned].bits


@pytest.mark.parametrize("kind", ["menu", "raw"])
def test_params_round_trip_returns_the_same_choices(kind: str) -> None:
    space = Space(PROBLEM.units, kind)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    for _ in range(50):
        choices = space.random(rng)
        params = space.params_of(choices)
        assert set(params) == set(space.distributions())
        assert all(
            distribution._contains(distribution.to_internal_repr(params[name]))
            for name, distribution in space.distributions().items()
        )
        assert np.array_equal(space.choices_of(params), choices)


def test_raw_space_missing_combination_becomes_the_nearest_of_its_algorithm() -> None:
    options = (Option(bits=8), Option(bits=4), Option("obs", 0.5, 8), Option("obs", 0.75, 4))
    space = Space([Unit("layer", "l", options, ("l",))], "raw")
    ratios = sorted({option.ratio for option in options})
    wanted = {"w:l|algorithm": "obs", "w:l|ratio": ratios.index(0.5), "w:l|bits": 1}
    assert options[space.choices_of(wanted)[0]].algorithm == "obs"


def test_space_without_unpruned_width_is_refused() -> None:
    layer = Unit("layer", "l", (Option(bits=8), Option("obs", 0.5, 4)), ("l",))
    with pytest.raises(SearchError, match=r"'l'.*4.*unpruned"):
        Space([layer, Unit("channels", "l", (Option(), Option("l1", 0.5)), ("l",))])
    Space([layer])  # where no channels can leave, a layer may have pruned options alone


def test_choices_of_foreign_parameters_names_the_missing_one() -> None:
    with pytest.raises(SearchError, match="w:l0"):
        Space(PROBLEM.units).choices_of({"x": 1})


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_front_keeps_exactly_what_brute_force_keeps(points: list[tuple[float, float]]) -> None:
    energy, damage = np.array(points).T
    kept = {points[i] for i in np.flatnonzero(front(energy, damage))}
    brute = {p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)}
    assert kept == brute


def test_menu_keeps_unpruned_and_front_sorted_by_energy() -> None:
    options = [
        Option(bits=8),
        Option(bits=4),
        Option("obs", 0.5, 8),
        Option("magnitude", 0.5, 8),
        Option("obs", 0.9, 8),
    ]
    energy = np.array([1.0, 0.5, 0.55, 0.6, 0.2])
    damage = np.array([0.0, 0.1, 0.05, 0.2, 0.5])
    assert menu(options, energy, damage).tolist() == [0, 2, 1, 4]
    near = np.array([0.0, 0.1, 0.05, 0.051, 0.5])
    assert menu(options, energy, near, slack=0.1).tolist() == [0, 3, 2, 1, 4]
    assert menu(options, energy, near, limit=2, slack=0.1).tolist() == [0, 2, 1, 4]
