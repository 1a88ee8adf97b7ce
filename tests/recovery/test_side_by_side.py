"""How the settings of layers are shared out among workers, and that these make the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwc_onnx.pruning.base import FineAlgorithm
from hwc_onnx.pruning.table import algorithm
from hwc_onnx.recovery import side_by_side
from hwc_onnx.recovery.layer import LayerRecovery, Setting
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
    threads = list(build(parts, layers, str, 2))
    monkeypatch.setattr(side_by_side, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(LayerRecovery, "build_many", None)  # the processes have their own
    processes = list(build(parts, layers, str, 2))
    assert [len(rows) for rows in threads] == [len(rows) for rows in processes] == [len(part) for _, part in parts]
    for one, other in zip(itertools.chain(*threads), itertools.chain(*processes), strict=True):
        assert one.error_heldout == other.error_heldout
        assert np.array_equal(one.codes, other.codes) and np.array_equal(one.scale, other.scale)  # type: ignore[arg-type]
