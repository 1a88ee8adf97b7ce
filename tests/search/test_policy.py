"""Policy files: one form for every problem, and what is said about files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hwc_onnx.errors import UsageError
from hwc_onnx.search.agents import Agents
from hwc_onnx.search.composite import Composite
from hwc_onnx.search.features import OBSERVATION, VOCABULARY
from hwc_onnx.search.policy import described, open_policy, read_policy, save_policy
from hwc_onnx.search.strategy import check_policy
from hwc_onnx.search.study import run_search
from tests.search.synthetic import SyntheticProblem


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "some.safetensors"
    save_policy(path, Agents(5))
    return path


def test_policy_round_trip_keeps_every_number(path: Path) -> None:
    policy, saved = read_policy(path), Agents(5).policy()
    assert policy.arrays.keys() == saved.keys()
    assert all(np.array_equal(policy.arrays[name], saved[name]) for name in saved)
    agents = Agents(1)
    agents.take_up(policy.arrays)
    assert all(np.array_equal(array, saved[name]) for name, array in agents.policy().items())


def test_policy_digest_tells_one_from_another_and_not_where_it_lies(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    assert read_policy(copy).digest == read_policy(path).digest
    save_policy(copy, Agents(6))
    assert read_policy(copy).digest != read_policy(path).digest


def test_policy_none_starts_from_scratch() -> None:
    assert open_policy("none") is None and open_policy(None) is None


def test_policy_that_the_package_ships_fits_and_is_small() -> None:
    policy = open_policy("pretrained")
    assert policy is not None and sum(array.nbytes for array in policy.arrays.values()) < 1_000_000


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("policy_schema", "9", "has 9 policy_schema"),
        ("observation", "7", f"this version reads {OBSERVATION}"),
        ("families", json.dumps(["solver", "none"]), "families"),
        ("policy_schema", None, "has no policy_schema"),
    ],
)
def test_policy_of_another_form_is_refused(path: Path, tmp_path: Path, name: str, value: str | None, told: str) -> None:
    metadata = described()
    if value is None:
        del metadata[name]
    else:
        metadata[name] = value
    other = tmp_path / "other.safetensors"
    save_file(load_file(path), other, metadata)
    with pytest.raises(UsageError, match=told) as refused:
        read_policy(other)
    assert "none to start from scratch" in str(refused.value) and str(other) in str(refused.value)


def test_policy_with_a_tensor_missing_of_another_size_or_not_finite_is_refused(path: Path, tmp_path: Path) -> None:
    arrays, other = load_file(path), tmp_path / "other.safetensors"
    name = "net.actor.head.weight"
    for wrong, told in (
        ({k: v for k, v in arrays.items() if k != name}, name),
        (arrays | {name: arrays[name][:, :5].copy()}, name),
        (arrays | {name: np.full_like(arrays[name], np.nan)}, "not finite"),
    ):
        save_file(wrong, other, described())
        with pytest.raises(UsageError, match=told):
            read_policy(other)


def test_policy_that_is_no_file_of_tensors_is_refused(tmp_path: Path) -> None:
    for wrong in (tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(UsageError, match="cannot be read as safetensors"):
            read_policy(wrong)
    text = tmp_path / "text.safetensors"
    text.write_text("pickle")
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        read_policy(text)


def test_policy_for_a_sampler_that_takes_none_is_refused(path: Path) -> None:
    assert check_policy("knapsack", None) is None and check_policy("tpe", "none") is None
    with pytest.raises(UsageError, match="sampler knapsack takes no policy"):
        check_policy("knapsack", path)


def test_agents_of_a_run_are_the_policy_of_the_next_with_other_depth_algorithms_and_limit(tmp_path: Path) -> None:
    class Other(SyntheticProblem):
        fine, coarse = (("wanda", 1.2), ("sensitivity", 1.0)), (("gram", 1.1), ("l2", 1.4))

    run_search(SyntheticProblem(layers=4, images=300), trials=24, storage_path=tmp_path / "study.journal", policy="none")
    policy = read_policy(tmp_path / "agent.safetensors")
    strategy = Composite(Other(layers=7, images=300, limit_points=2.0), 0, 20, start=policy)
    agents = strategy._ready()
    assert all(np.array_equal(array, policy.arrays[name]) for name, array in agents.policy().items())
    found = run_search(
        Other(layers=7, images=300, limit_points=2.0), trials=14, policy=tmp_path / "agent.safetensors"
    )
    assert found.best is not None


def test_study_with_another_policy_is_refused(path: Path, tmp_path: Path) -> None:
    problem, journal = SyntheticProblem(layers=4, images=300), tmp_path / "study.journal"
    run_search(problem, trials=4, storage_path=journal, policy="none")
    with pytest.raises(UsageError, match="policy"):
        run_search(problem, trials=4, storage_path=journal, policy=path)
    run_search(problem, trials=5, storage_path=journal, policy="none")


def test_vocabulary_names_every_algorithm_once() -> None:
    assert len(set(VOCABULARY)) == len(VOCABULARY)
