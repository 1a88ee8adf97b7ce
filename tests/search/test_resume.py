"""A search that was stopped, killed or extended goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hwc_onnx.errors import UsageError
from hwc_onnx.search.agents import Agents
from hwc_onnx.search.checkpoint import Checkpoint, search_of
from hwc_onnx.search.history import History
from hwc_onnx.search.policy import open_policy
from hwc_onnx.search.problem import Choices, Outcome
from hwc_onnx.search.storage import LOCK_SUFFIX, open_storage
from hwc_onnx.search.study import SearchResult, run_search
from tests.search import searching_child
from tests.search.synthetic import SyntheticProblem

TRIALS = 24
ROOT = Path(__file__).parents[2]


class Stopping(SyntheticProblem):
    """Ctrl-C while the candidate number `at` is measured."""

    def __init__(self, at: int) -> None:
        super().__init__(layers=3, images=400)
        self.at = at

    def evaluate(self, choices: Choices, energy_limit: float = np.inf) -> Outcome:
        if self.evaluations == self.at:
            raise KeyboardInterrupt
        return super().evaluate(choices, energy_limit)


def plain() -> SyntheticProblem:
    return SyntheticProblem(layers=3, images=400)


def trials(found: SearchResult) -> list[tuple[list[int], str, float, bool]]:
    return [(r.choices.tolist(), r.origin, r.outcome.energy, r.counted) for r in found.history.records]


def agents_of(folder: Path) -> dict[str, np.ndarray]:
    """Networks, optimisers and replays of the last checkpoint in a folder."""
    return load_file(folder / "agent.safetensors")


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, dict[str, np.ndarray]]:
    """The composite search without interruption, and its agents after 20 trials."""
    folder = tmp_path_factory.mktemp("whole")
    return run_search(plain(), trials=TRIALS, storage_path=folder / "study.journal"), agents_of(folder)


Whole = tuple[SearchResult, dict[str, np.ndarray]]


@pytest.mark.parametrize(("at", "checkpoint"), [(3, True), (14, True), (14, False)])
def test_resume_composite_gives_the_trials_and_the_agents_of_an_uninterrupted_run(
    at: int, checkpoint: bool, whole: Whole, tmp_path: Path
) -> None:
    """Stopped among the seeds, and in the middle; from the checkpoint and by replaying."""
    path = tmp_path / "study.journal"
    assert run_search(Stopping(at), trials=TRIALS, storage_path=path).stopped_by == "interrupted"
    saved = tmp_path / "agent.safetensors"
    assert saved.exists() == (at >= 14)
    if not checkpoint:
        saved.unlink()
    resumed = run_search(plain(), trials=TRIALS, storage_path=path, resume=True)
    assert trials(resumed) == trials(whole[0])
    assert (resumed.spent, resumed.stopped_by) == (whole[0].spent, whole[0].stopped_by)
    assert same(agents_of(tmp_path), whole[1])


def test_resume_from_fresh_agents_in_place_of_the_checkpoint_ends_with_other_agents(
    whole: Whole, tmp_path: Path
) -> None:
    """The broken twin: agents that forgot the first trials, passed off as the study's own."""
    path = tmp_path / "study.journal"
    run_search(Stopping(14), trials=TRIALS, storage_path=path)
    policy = open_policy(None)
    depends = search_of(0, TRIALS, None if policy is None else policy.digest)
    checkpoint = Checkpoint(tmp_path / "agent.safetensors", depends)
    history = History(whole[0].history.space, 1.0)
    for record in whole[0].history.records[:10]:
        history.append(record)
    restored = checkpoint.load(history)
    assert restored is not None
    checkpoint.save(history, Agents(0))
    run_search(plain(), trials=TRIALS, storage_path=path)
    assert not same(agents_of(tmp_path), whole[1])


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "knapsack"])
@pytest.mark.parametrize("at", [2, 10])
def test_resume_other_samplers_give_the_trials_of_an_uninterrupted_run(sampler: str, at: int, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    run_search(Stopping(at), sampler=sampler, trials=16, storage_path=path)
    resumed = run_search(plain(), sampler=sampler, trials=16, storage_path=path)
    assert trials(resumed) == trials(run_search(plain(), sampler=sampler, trials=16))


def test_resume_converged_study_stops_where_it_stopped(tmp_path: Path) -> None:
    options = {"sampler": "random", "trials": 24, "patience": 5}
    whole = run_search(plain(), **options)
    assert whole.stopped_by == "converged"
    path = tmp_path / "study.journal"
    run_search(Stopping(8), storage_path=path, **options)
    assert trials(run_search(plain(), storage_path=path, **options)) == trials(whole)
    again = run_search(plain(), storage_path=path, **options)
    assert (trials(again), again.stopped_by) == (trials(whole), "converged")
    longer = run_search(plain(), storage_path=path, **(options | {"patience": 0}))
    assert longer.stopped_by == "trials" and trials(longer)[: len(whole.history)] == trials(whole)


def test_resume_with_more_trials_keeps_the_old_ones_and_adds_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    first = run_search(plain(), sampler="knapsack", trials=20, storage_path=path)
    longer = run_search(plain(), sampler="knapsack", trials=30, storage_path=path)
    assert trials(longer)[: len(first.history)] == trials(first)
    assert first.spent.evaluations < longer.spent.evaluations <= 30


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"problem": SyntheticProblem(layers=3, images=400, seed=8)}, r"digests\.model"),
        ({"problem": SyntheticProblem(layers=3, images=400, limit_points=2.0)}, "limit_points"),
        ({"sampler": "tpe"}, "sampler"),
        ({"seed": 1}, "seed"),
        ({"warm_start": False}, "warm_start"),
        ({"start": "cold"}, "start"),
        ({"space": "raw"}, "space"),
    ],
)
def test_resume_study_of_something_else_is_refused_naming_the_difference(
    changes: dict[str, object], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "study.journal"
    run_search(plain(), sampler="random", trials=3, storage_path=path)
    before = path.read_bytes()
    options = {"problem": plain(), "sampler": "random", "trials": 3} | changes
    with pytest.raises(UsageError, match=rf"stored study has {named} .*this run .*--fresh"):
        run_search(storage_path=path, **options)  # type: ignore[arg-type]
    assert path.read_bytes() == before


def test_resume_without_a_study_is_refused_when_demanded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to resume"):
        run_search(plain(), trials=3, storage_path=tmp_path / "study.journal", resume=True)


@pytest.mark.parametrize(
    ("content", "message"), [(b"not a journal\nat all\n", "not a study journal"), (None, "cannot be opened")]
)
def test_storage_that_cannot_be_read_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        run_search(plain(), trials=3, storage_path=path)


def test_storage_half_a_line_and_a_stale_lock_are_cleared_even_at_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("run") / "study.journal"
    path.parent.mkdir()
    first = run_search(plain(), sampler="random", trials=5, storage_path=path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"worker_id":"')
    os.symlink(str(path), f"{path}{LOCK_SUFFIX}")
    resumed = run_search(plain(), sampler="random", trials=8, storage_path=path)
    assert trials(resumed)[:5] == trials(first) and resumed.spent.evaluations == 8
    assert path.read_bytes().startswith(whole)
    for line in path.read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_storage_cut_at_any_byte_loses_at_most_the_last_trial(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    whole = run_search(plain(), sampler="knapsack", trials=9, storage_path=path)
    path.write_bytes(path.read_bytes()[:-cut])
    resumed = run_search(plain(), sampler="knapsack", trials=9, storage_path=path)
    assert trials(resumed) == trials(whole)
    assert open_storage(path).get_n_trials(0) == 9


@pytest.mark.parametrize(("sampler", "after"), [("knapsack", 11), ("random", 4)])
def test_killed_process_loses_no_finished_trial(sampler: str, after: int, tmp_path: Path) -> None:
    """kill -9 of a real process in the middle of a search, then the same search again."""
    path = tmp_path / "study.journal"
    command = [sys.executable, "-m", "tests.search.searching_child", str(path), sampler, "16"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = [json.loads(child.stdout.readline()) for _ in range(after)]
        child.send_signal(signal.SIGKILL)
        told += [json.loads(line) for line in child.stdout if line.endswith("\n")]
        assert child.wait() == -signal.SIGKILL
    shutil.copy(path, tmp_path / "killed.journal")
    kept = run_search(searching_child.problem(), sampler=sampler, trials=1, storage_path=tmp_path / "killed.journal")
    assert [record.choices.tolist() for record in kept.history.records][: len(told)] == told
    resumed = run_search(searching_child.problem(), sampler=sampler, trials=16, storage_path=path)
    assert trials(resumed) == trials(run_search(searching_child.problem(), sampler=sampler, trials=16))
