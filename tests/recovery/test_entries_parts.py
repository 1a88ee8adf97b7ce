"""How the settings of a layer are shared out among threads."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwc_onnx.pruning.base import FineAlgorithm
from hwc_onnx.pruning.table import algorithm
from hwc_onnx.recovery.entries import _parts
from hwc_onnx.recovery.layer import Setting

MASKS = tuple(algorithm(name) for name in ("magnitude", "obs"))


@given(count=st.integers(0, 40), parts=st.integers(1, 9))
def test_parts_hold_every_setting_once_and_are_of_equal_size(count: int, parts: int) -> None:
    settings = [Setting(bits=2 + i) for i in range(count)]
    shared = _parts(settings, parts)
    assert sorted(setting.bits for part in shared for setting in part) == [setting.bits for setting in settings]
    assert 1 <= len(shared) <= parts
    assert max(map(len, shared)) <= -(-max(count, 1) // parts)


def test_parts_keep_widths_of_one_mask_together() -> None:
    settings = []
    for bits, mask, ratio, kept in itertools.product((8, 4, 2), MASKS, (0.25, 0.5), (None, np.arange(3))):
        assert isinstance(mask, FineAlgorithm)
        settings.append(Setting(bits, mask, ratio, columns=kept))
    shared = _parts(settings, 8)
    assert len(shared) == 8
    for part in shared:
        assert {setting.bits for setting in part} == {8, 4, 2}
        assert len({(setting.mask.name if setting.mask else "", setting.ratio) for setting in part}) == 1
    # as they came, a part would have mixed them
    assert len({setting.ratio for setting in settings[:3]}) > 1 or len({id(setting.mask) for setting in settings[:3]}) > 1
