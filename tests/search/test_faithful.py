"""The agent as published: what its actions mean, that it follows the record, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.faithful import Faithful
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.problem import Option, Outcome, Unit
from hwc_onnx.search.raw_walk import OBSERVATION, RawWalk, nearest
from hwc_onnx.search.space import Space
from hwc_onnx.search.study import run_search
from tests.search.synthetic import SyntheticProblem

SMALL = SyntheticProblem(layers=4, images=400)
UNIT = Unit(
    "layer",
    "l",
    (Option(bits=8), Option(bits=4), Option(bits=2), Option("obs", 0.25, 8), Option("obs", 0.75, 4), Option("obs", 0.75, 2)),
    ("l",),
)


def walk() -> RawWalk:
    return RawWalk(SMALL, Decoder(SMALL, Space(SMALL.units)))


@pytest.mark.parametrize(
    ("name", "ratio", "width", "expected"),
    [
        ("none", 0.9, 0.0, 0),
        ("none", 0.0, 0.6, 1),
        ("none", 0.0, 1.0, 2),
        ("obs", 0.2, 0.0, 3),
        ("obs", 1.0, 0.7, 4),
        ("obs", 1.0, 1.0, 5),
        ("l1", 1.0, 1.0, 2),
    ],
)
def test_nearest_takes_the_algorithm_first_then_width_and_ratio(
    name: str, ratio: float, width: float, expected: int
) -> None:
    assert nearest(UNIT, name, ratio, width) == expected


def test_walk_mildest_actions_give_the_baseline_and_strongest_the_fewest_bits() -> None:
    raw = walk()
    for action, check in ((-1.0, "mild"), (1.0, "strong")):
        walked = raw.start()
        while not walked.finished:
            assert walked.observe().shape == (OBSERVATION,)
            walked.act(np.full(3, action, dtype=np.float32), 0)
        if check == "mild":
            np.testing.assert_array_equal(walked.choices, SMALL.start)
        else:
            for unit, chosen in zip(SMALL.units, walked.choices, strict=True):
                assert unit.options[chosen].bits == min(option.bits for option in unit.options)
                assert unit.options[chosen].algorithm == "none"


def test_walk_first_layer_of_a_group_decides_for_it() -> None:
    raw = walk()
    group = next(u for u, layers in raw.decoder.space.producers.items() if len(layers) > 1)
    members = raw.decoder.space.producers[group]
    for first in ("l1", "none"):
        walked = raw.start()
        for layer in raw.layers:
            name = first if layer == members[0] else "l1"
            walked.act(np.array([0.0, -1.0, -1.0], dtype=np.float32), raw.families.index(name))
        assert SMALL.units[group].options[walked.choices[group]].algorithm == first


def test_walk_offers_the_algorithms_of_layer_and_group() -> None:
    raw = walk()
    offered = {raw.families[f] for f in np.flatnonzero(raw.masks[0])}
    group = raw.decoder.space.owner[raw.layers[0]]
    assert offered == set(SMALL.units[raw.layers[0]].algorithms) | set(SMALL.units[group].algorithms)
    last = {raw.families[f] for f in np.flatnonzero(raw.masks[-1])}
    assert last == set(SMALL.units[raw.layers[-1]].algorithms)


def test_faithful_proposals_and_networks_follow_from_the_record() -> None:
    found = run_search(SMALL, sampler="faithful", trials=24, seed=1, warm_start=False)
    records = [record for record in found.history.records if record.origin == "policy"]
    history = History(Space(SMALL.units), SMALL.limit_points)
    for record in records[:15]:
        history.append(record)
    proposal = Faithful(SMALL, 1, 24).propose(history)
    assert proposal is not None
    np.testing.assert_array_equal(proposal.choices, records[15].choices)
    # another outcome teaches something else
    other = History(Space(SMALL.units), SMALL.limit_points)
    for record in records[:15]:
        other.append(replace(record, outcome=replace(record.outcome, drop_points=0.0, energy=1.0 - record.outcome.energy)))
    changed = Faithful(SMALL, 1, 24).propose(other)
    assert changed is not None
    assert not np.array_equal(changed.choices, records[15].choices)


def test_faithful_reward_falls_with_energy_and_with_what_exceeds_the_limit() -> None:
    strategy = Faithful(SMALL, 0, 10)

    def reward(energy: float, drop: float, **limits: float) -> float:
        return strategy.reward(Record(0, SMALL.start, Outcome(energy, drop, 0.1, 0.1, limits=limits), "policy", True, 0.0))

    assert reward(0.3, 0.2) == pytest.approx(0.7)
    assert reward(0.5, 0.2) < reward(0.3, 0.2)
    assert reward(0.3, 1.5) < reward(0.3, 1.2) < reward(0.3, 0.9)
    assert reward(0.3, 0.2, bytes=0.1) < reward(0.3, 0.2, bytes=-0.1)
    assert reward(0.1, 90.0) == -1.0


def test_faithful_learns_to_save_energy_where_nothing_forbids_it() -> None:
    problem = SyntheticProblem(layers=4, images=400, limit_points=1000.0)
    found = run_search(problem, sampler="faithful", trials=90, seed=0, warm_start=False)
    energies = [record.outcome.energy for record in found.history.records if record.origin == "policy"]
    assert np.mean(energies[-25:]) < 0.8 * np.mean(energies[:25])
