from __future__ import annotations

import re

import numpy as np
import pytest

from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.splits import calibration_size, make_splits, stratified_order
from hwc_onnx.errors import DataError

SPECS = [InputSpec("x", (None, 2), np.dtype(np.float32))]


def numbered(count: int, holdout: int = 0, labels: bool = True):
    """Samples whose first value is their number."""
    x = np.stack([np.arange(count), np.zeros(count)], axis=1).astype(np.float32)
    arrays = {"x": x}
    if labels:
        arrays["y"] = np.arange(count) % 7
    if holdout:
        arrays["x_holdout"] = np.full((holdout, 2), -1, np.float32)
        if labels:
            arrays["y_holdout"] = np.zeros(holdout, np.int64)
    return load_data(arrays, SPECS)


def members(samples) -> set[int]:
    return set(samples.inputs["x"][:, 0].astype(int).tolist())


@pytest.mark.parametrize(
    ("count", "holdout", "sizes"),
    [
        (1000, 0, (250, 450, 300)),
        (5000, 10000, (1024, 3976, 10000)),
        (40000, 0, (1024, 4096, 10000)),
        (256, 0, (64, 116, 76)),
    ],
)
def test_make_splits_sizes_follow_the_rule(count, holdout, sizes):
    found = make_splits(numbered(count, holdout))
    assert (len(found.calibration), len(found.search), len(found.holdout)) == sizes


def test_make_splits_are_disjoint_and_repeatable():
    data = numbered(1000)
    first, again, other = make_splits(data, 0), make_splits(data, 0), make_splits(data, 1)
    parts = [members(part) for part in (first.calibration, first.search, first.holdout)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1000
    np.testing.assert_array_equal(first.search.inputs["x"], again.search.inputs["x"])
    assert first.digest == again.digest != other.digest
    assert members(other.search) != parts[1]


def test_calibration_digest_follows_the_calibration_samples_alone():
    data = numbered(1000)
    first, searched = make_splits(data), make_splits(data, search=100)
    assert first.calibration_digest == searched.calibration_digest and first.digest != searched.digest
    for other in (make_splits(data, calibration=128), make_splits(data, 1), make_splits(numbered(1001), 0, 250)):
        assert other.calibration_digest != first.calibration_digest


@pytest.mark.parametrize("holdout", [0, 100])
def test_calibration_size_is_granted_exactly_where_splits_can_be_made(holdout):
    data = numbered(300, holdout)
    for wanted in range(0, 301, 1):
        try:
            make_splits(data, calibration=wanted)
        except DataError:
            assert calibration_size(data, wanted) is None
        else:
            assert calibration_size(data, wanted) == wanted


def test_make_splits_own_holdout_is_used_alone():
    found = make_splits(numbered(1000, 100))
    assert members(found.holdout) == {-1}
    assert -1 not in members(found.search) | members(found.calibration)


def test_make_splits_every_split_and_prefix_is_stratified():
    found = make_splits(numbered(2800))
    for part in (found.calibration, found.search, found.holdout, found.search.take(slice(0, 256))):
        counts = np.bincount(part.labels, minlength=7)
        assert counts.max() - counts.min() <= 3


@pytest.mark.parametrize(("count", "holdout"), [(100, 0), (255, 0), (200, 100), (5000, 63)])
def test_make_splits_too_few_samples_are_refused(count, holdout):
    with pytest.raises(DataError, match="at least 64"):
        make_splits(numbered(count, holdout))


@pytest.mark.parametrize(
    ("count", "holdout", "asked"),
    [(100, 0, {}), (100, 10, {}), (300, 0, {"calibration": 200}), (5000, 63, {}), (400, 64, {"calibration": 390, "search": 80})],
)
def test_make_splits_says_at_once_how_many_samples_all_splits_need(count, holdout, asked):
    with pytest.raises(DataError, match=r"give \d+ samples or more") as refused:
        make_splits(numbered(count, holdout), **asked)
    least = int(re.search(r"give (\d+) samples", str(refused.value)).group(1))
    held = 64 if holdout else 0
    assert holdout == 0 or "and 64 or more for the holdout" in str(refused.value)
    make_splits(numbered(least, held), **asked)
    with pytest.raises(DataError):
        make_splits(numbered(least - 1, held), **asked)


@pytest.mark.parametrize("name", ["calibration", "search"])
def test_make_splits_too_small_a_size_names_the_option_to_raise(name):
    with pytest.raises(DataError, match=f"leave 20 for the {name} split.*give --{name}-samples 64 or more"):
        make_splits(numbered(1000), **{name: 20})


def test_make_splits_sizes_can_be_set():
    found = make_splits(numbered(1000), calibration=128, search=200)
    assert (len(found.calibration), len(found.search)) == (128, 200)


def test_make_splits_without_labels():
    found = make_splits(numbered(1000, labels=False))
    assert found.search.labels is None


def test_stratified_order_is_a_permutation():
    labels = np.random.default_rng(0).integers(0, 3, 50)
    order = stratified_order(labels, 50, np.random.default_rng(1))
    assert sorted(order.tolist()) == list(range(50))
