"""How the settings of layers are shared out among workers, and that these make the same."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwc_onnx.pruning.base import FineAlgorithm
from hwc_onnx.pruning.table import algorithm
from hwc_onnx.recovery import side_by_side
from hwc_onnx.recovery.layer import LayerRecovery
from hwc_onnx.recovery.setting import RepairedRows, Setting
from hwc_onnx.recovery.side_by_side import build, parts_of, split
from tests.recovery.problems import case, layout_for

MASKS = tuple(algorithm(name) for name in ("magnitude", "obs"))


@given(count=st.integers(0, 40), parts=st.integers(1, 9))
def test_parts_hold_every_setting_once_and_are_of_equal_size(count: int, parts: int) -> None:
    settings = [Setting(bits=2 + i) for i in range(count)]
    shared = split(settings, parts)
    assert sorted(setting.bits for part in shared for setting in part) == [setting.bits for setting in settings]
    assert 1 <= len(shared) <= parts
    assert max(map(len, shared)) <= -(-max(count, 1) // parts)


def test_parts_keep_widths_of_one_mask_together() -> None:
    settings = []
    for bits, mask, ratio, kept in itertools.product((8, 4, 2), MASKS, (0.25, 0.5), (None, np.arange(3))):
        assert isinstance(mask, FineAlgorithm)
        settings.append(Setting(bits, mask, ratio, columns=kept))
    shared = split(settings, 8)
    assert len(shared) == 8
    for part in shared:
        assert {setting.bits for setting in part} == {8, 4, 2}
        assert len({(setting.mask.name if setting.mask else "", setting.ratio) for setting in part}) == 1
    # as they came, a part would have mixed them
    assert len({setting.ratio for setting in settings[:3]}) > 1 or len({id(setting.mask) for setting in settings[:3]}) > 1


def test_processes_make_what_threads_make(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [
        Setting(bits, algorithm("obs"), 0.5, columns=kept)  # type: ignore[arg-type]
        for bits, kept in itertools.product((8, 3), (None, np.arange(5)))
    ]
    layers = {}
    for seed, name in enumerate("abc"):
        one = case(seed=seed, rows=6, width=9)
        layers[name] = LayerRecovery(layout_for(1, 6, 9), one.weight, np.zeros(6), one.statistics, True)
    parts = parts_of({"a": settings, "b": [], "c": settings[:1]}, layers, workers=2)
    threads = dict(build(parts, layers, str, 2))
    monkeypatch.setattr(side_by_side, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(LayerRecovery, "build_many", None)  # the processes have their own
    processes = dict(build(parts, layers, str, 2))
    assert sorted(threads) == sorted(processes) == list(range(len(parts)))
    for place, rows in threads.items():
        assert len(rows) == len(parts[place][1])
        for one, other in zip(rows, processes[place], strict=True):
            same(one, other)


def same(one: RepairedRows, other: RepairedRows) -> None:
    assert (one.error_fit, one.error_heldout) == (other.error_fit, other.error_heldout)
    for name in ("codes", "scale", "bias"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("width", [9, 160])
def test_a_setting_does_not_depend_on_what_is_made_beside_it(width: int) -> None:
    one = case(seed=3, rows=40, width=width, samples=500)
    settings = [
        Setting(bits, mask, ratio)
        for bits in (8, 5, 4, 3, 2)
        for mask, ratio in ((None, 0.0), (algorithm("obs"), 0.5), (algorithm("nm24"), 0.5))
    ]

    def layer() -> LayerRecovery:
        return LayerRecovery(layout_for(1, 40, width), one.weight, np.zeros(40), one.statistics, True)

    for setting, together in zip(settings, layer().build_many(settings), strict=True):
        same(layer().build(setting), together)


def test_a_killed_process_leaves_its_work_to_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one = case(seed=0, rows=6, width=9)
    layers = {"a": LayerRecovery(layout_for(1, 6, 9), one.weight, np.zeros(6), one.statistics, True)}
    parts = [("a", [Setting(bits)]) for bits in (8, 4)]
    expected = dict(build(parts, layers, str, 2))
    monkeypatch.setattr(side_by_side, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(side_by_side, "_made", end_at_once)
    found = dict(build(parts, layers, str, 2))
    assert sorted(found) == [0, 1]
    for place, rows in expected.items():
        same(rows[0], found[place][0])


def end_at_once(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


ABANDONED = """
import time
import numpy as np
from hwc_onnx.recovery import side_by_side
from hwc_onnx.recovery.layer import LayerRecovery
from hwc_onnx.recovery.setting import Setting
from tests.recovery.problems import case, layout_for

if __name__ == "__main__":
    side_by_side.WORTH_PROCESSES = 0
    one = case(seed=0, rows=6, width=9)
    layers = {"a": LayerRecovery(layout_for(1, 6, 9), one.weight, np.zeros(6), one.statistics, True)}
    made = side_by_side.build([("a", [Setting(bits)]) for bits in (8, 4, 3)], layers, str, 2)
    next(made)
    print("made", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed in /proc")
def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "abandoned.py"
    script.write_text(ABANDONED)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment, cwd=root) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"made\n"
        tasks = Path(f"/proc/{parent.pid}/task").iterdir()
        workers = [pid for task in tasks for pid in (task / "children").read_text().split()]
        assert workers
        parent.kill()
    deadline = time.monotonic() + 60.0
    while (alive := [pid for pid in workers if running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not alive


def running(pid: str) -> bool:
    """Whether the process works on; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
