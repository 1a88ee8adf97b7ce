"""Limits of memory: fewer samples, smaller batches and parts; the results are those of asking for that in the first place."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

import hwc_onnx
from hwc_onnx.accuracy import collector, fewer, outputs, pool, reference, splits, tensors
from hwc_onnx.accuracy.collector import collect
from hwc_onnx.accuracy.damage import divergence_from, log_sum_exp
from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.outputs import ClassOutput, class_output
from hwc_onnx.accuracy.reference import make_reference
from hwc_onnx.accuracy.splits import MINIMUM, make_splits
from hwc_onnx.accuracy.tensors import batch_within, run_tensors
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.rebuild import rebuild
from hwc_onnx.uniform import parse_spec, uniform
from tests import tiny_models
from tests.accuracy.linear_model import CLASSES, classifier, labelled, perturbed
from tests.cli.tiny_case import tiny_case
from tests.pruning.prepared import prepare

SPECS = [InputSpec("x", (None, 4), np.dtype(np.float32))]


@pytest.fixture
def samples() -> Samples:
    images, labels = labelled(400)
    return Samples({"image": images}, labels)


@pytest.mark.parametrize("metric", ["top1", "agreement", "cosine", "sqnr"])
def test_a_reference_above_its_limit_is_that_of_fewer_samples(samples, metric, monkeypatch):
    expected = make_reference(classifier(), fewer.fewer(samples, 90), metric, threads=1)
    monkeypatch.setattr(reference, "OUTPUT_BYTES", 90 * 4 * CLASSES + 3)
    found = make_reference(classifier(), samples, metric, threads=1)
    assert len(found) == 90
    np.testing.assert_array_equal(found.samples.labels, expected.samples.labels)
    assert found.note.startswith("memory: 90 of 400 samples are measured") and not expected.note
    if metric == "sqnr":
        return
    one, other = (measure(perturbed(0.3), against, threads=1) for against in (found, expected))
    assert one == other and one.n_samples == 90 and one.drop_points != 0


def test_a_reference_is_never_made_on_fewer_than_sixteen(samples, monkeypatch):
    monkeypatch.setattr(reference, "OUTPUT_BYTES", 1)
    assert len(make_reference(classifier(), samples, threads=1)) == fewer.FEWEST_MEASURED


def test_fewer_samples_have_the_classes_in_proportion_and_stay_in_order():
    labels = np.repeat(np.arange(5), [500, 200, 100, 100, 100])  # sorted, as files often are
    found = fewer.fewer(Samples({"x": np.arange(1000)}, labels), 100)
    assert np.abs(np.bincount(found.labels) - [50, 20, 10, 10, 10]).max() <= 1
    assert (np.diff(found.inputs["x"]) > 0).all()
    # broken twin: the first hundred are of one class
    assert len(np.unique(labels[:100])) == 1


def numbered(count: int, holdout: int = 0):
    arrays: dict[str, NDArray[np.generic]] = {"x": np.tile(np.arange(count, dtype=np.float32)[:, None], 4), "y": np.arange(count) % 7}
    if holdout:
        arrays |= {"x_holdout": np.tile(np.arange(holdout, dtype=np.float32)[:, None], 4), "y_holdout": np.arange(holdout) * 7 // holdout}
    return load_data(arrays, SPECS)


def test_splits_above_their_limit_are_those_of_smaller_ones(monkeypatch):
    data = numbered(1200)
    calibration, search = make_splits(data, calibration=100), make_splits(data, search=100)
    monkeypatch.setattr(splits, "SPLIT_BYTES", 100 * 16 + 5)
    found = make_splits(data)
    np.testing.assert_array_equal(found.calibration.inputs["x"], calibration.calibration.inputs["x"])
    np.testing.assert_array_equal(found.search.inputs["x"], search.search.inputs["x"])
    assert found.calibration_digest == calibration.calibration_digest
    assert [note.split(",")[0] for note in found.notes] == [
        "memory: 100 of 300 calibration samples are used",
        "memory: 100 of 540 search samples are used",
        "memory: 100 of 360 holdout samples are used",
    ]
    assert not calibration.notes


def test_a_holdout_of_its_own_keeps_its_classes_in_proportion(monkeypatch):
    monkeypatch.setattr(splits, "SPLIT_BYTES", 140 * 16)
    found = make_splits(numbered(1200, holdout=700))
    counts = np.bincount(found.holdout.labels, minlength=7)  # sorted in the file
    assert len(found.holdout) == 140 and counts.max() - counts.min() <= 2
    monkeypatch.setattr(splits, "SPLIT_BYTES", 1)
    assert len(make_splits(numbered(1200, holdout=700)).holdout) == MINIMUM


def test_no_room_for_a_temporary_file_is_said(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pool, "IN_MEMORY_BYTES", 1000)
    assert make_splits(numbered(1200)).calibration.inputs["x"].shape == (300, 4)  # a file, and room for it
    monkeypatch.setattr(pool.os, "posix_fallocate", full, raising=False)
    with pytest.raises(DataError, match=r"temporary space are needed in .* \(No space left on device\)"):
        make_splits(numbered(1200))


def plain_divergence(p: NDArray[np.float32], q: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean KL over positions of [N, C, ...] in double precision, all at once."""
    first, second = (np.moveaxis(x.astype(np.float64), 1, -1).reshape(len(x), -1, x.shape[1]) for x in (p, q))
    logs, others = (x - log_sum_exp(x)[..., None] for x in (first, second))
    result: NDArray[np.float64] = (np.exp(logs) * (logs - others)).sum(axis=2).mean(axis=1)
    return result


@pytest.mark.parametrize("part_bytes", [1, 10_000, 64 << 20])
def test_dense_outputs_are_compared_in_parts(part_bytes, monkeypatch):
    monkeypatch.setattr(outputs, "PART_BYTES", part_bytes)
    rng = np.random.default_rng(0)
    p, q = (rng.normal(0, 2, (40, 5, 6, 7)).astype(np.float32) for _ in range(2))
    classes = class_output({"z": p}, "segmentation")
    assert classes == ClassOutput("z", 1, 5, False)
    compared = divergence_from({"z": p}, classes, None)
    damage = np.concatenate([compared({"z": q[at : at + 9]}, at)[0] for at in range(0, 40, 9)])
    np.testing.assert_allclose(damage, plain_divergence(p, q), rtol=1e-9)
    plain = divergence_from({"z": p}, None, None)({"z": q}, 0)[0]
    square = (p.astype(np.float64) ** 2).sum(axis=(1, 2, 3)).mean()
    np.testing.assert_allclose(plain, ((p.astype(np.float64) - q) ** 2).sum(axis=(1, 2, 3)) / square, rtol=1e-9)


@pytest.mark.parametrize("part_bytes", [1, 64 << 20])
def test_probabilities_are_recognised_in_parts(part_bytes, monkeypatch):
    monkeypatch.setattr(outputs, "PART_BYTES", part_bytes)
    scores = np.random.default_rng(0).random((50, 4)).astype(np.float32)
    shares = scores / scores.sum(axis=1, keepdims=True)
    assert class_output({"z": shares}).probabilities
    shares[-1] *= 0.5  # the last row alone does not add up
    assert class_output({"z": shares}) is None
    assert not class_output({"z": shares - 1}).probabilities


def test_batch_within_one_sample_at_least():
    limit = tensors.GROUP_BYTES // 4
    assert [batch_within(size, 64) for size in (1, limit // 64, limit // 3, limit, 10 * limit)] == [64, 64, 3, 1, 1]


def seen(limit: int, monkeypatch) -> Iterator[tuple[str, int, NDArray[np.float32]]]:
    model = tiny_models.chain()
    x = tiny_models.feeds(model, 20)["x"]
    proto = normalize(model)
    names = [layer.key for layer in parse(proto).layers]
    monkeypatch.setattr(tensors, "GROUP_BYTES", limit)
    sizes = {name: int(np.prod(parse(proto).tensors[name].shape)) for name in names}
    yield from run_tensors(proto, Samples({"x": x}, None), names, sizes, threads=1)


def test_tensors_leave_in_batches_within_the_limit(monkeypatch):
    usual, small = (list(seen(limit, monkeypatch)) for limit in (128 << 20, 6000))
    assert max(array.nbytes for _, _, array in usual) > 6000 >= max(array.nbytes for _, _, array in small)
    for name in {name for name, _, _ in usual}:
        one, other = (np.concatenate([a for n, _, a in found if n == name]) for found in (usual, small))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_histograms_do_not_depend_on_the_parts_that_are_counted(monkeypatch):
    model = tiny_models.residual()
    x = tiny_models.feeds(model, 32)["x"]
    proto = normalize(model)
    found = []
    for count in (8 << 20, 777):
        monkeypatch.setattr(collector, "COUNTED_ELEMENTS", count)
        found.append(collect(proto, parse(proto), Samples({"x": x}, None), threads=1, rng=np.random.default_rng(0)))
    for name, whole in found[0].histograms.items():
        parts = found[1].histograms[name]
        assert (whole.total, whole.zeros, whole.minimum, whole.maximum) == (parts.total, parts.zeros, parts.minimum, parts.maximum)
        assert whole.counts.sum() == parts.counts.sum()
        assert parts.quantile(0.9) == pytest.approx(whole.quantile(0.9), abs=2 * max(whole.width, parts.width))


def test_a_rebuild_in_small_batches_is_that_of_asking_for_them(monkeypatch):
    made = prepare(tiny_models.ALL["residual"], images=32)
    plan = uniform(made.graph, parse_spec("w3a8,coarse=l1:0.5"))
    arguments = (made.proto, made.graph, plan, made.database, made.samples)
    expected = rebuild(*arguments, threads=1, batch=2)
    largest = max(int(np.prod(info.shape)) for info in made.graph.tensors.values())
    monkeypatch.setattr(tensors, "GROUP_BYTES", 2 * 4 * largest + 3)
    found = rebuild(*arguments, threads=1)
    for key, weight in expected.weights.items():
        np.testing.assert_array_equal(found.weights[key].codes, weight.codes)
        np.testing.assert_array_equal(found.weights[key].bias, weight.bias)


def test_layers_too_wide_to_pair_keep_their_entries(monkeypatch):
    from hwc_onnx import posing as module

    made = prepare(tiny_models.ALL["residual"], images=32)
    plan = uniform(made.graph, parse_spec("w3a8"))
    stitched = made.database.stitch(plan)
    monkeypatch.setattr(module, "WIDEST", 1)
    found = rebuild(made.proto, made.graph, plan, made.database, made.samples, threads=1)
    assert all(np.array_equal(found.weights[key].codes, weight.codes) for key, weight in stitched.weights.items())


def test_apply_says_how_many_samples_it_used_and_gives_what_that_many_give(tmp_path, monkeypatch):
    model, arrays = tiny_case(np.random.default_rng(0))
    plan = hwc_onnx.uniform_plan(model, "w4a8")
    monkeypatch.setattr(splits, "SPLIT_BYTES", 100 * arrays["x"][0].nbytes)
    few = hwc_onnx.apply_plan(model, plan=plan, data=arrays)
    monkeypatch.setattr(reference, "OUTPUT_BYTES", 80 * 16)
    fewest = hwc_onnx.apply_plan(model, plan=plan, data=arrays)
    monkeypatch.undo()
    record = plan.model_copy(update={"calibration": plan.calibration.model_copy(update={"samples": 100})})
    asked = hwc_onnx.apply_plan(model, plan=record, data=arrays)
    assert any(note.startswith("memory: 100 of 300 calibration samples") for note in few.notes)
    assert few.plan.digest() == fewest.plan.digest() == asked.plan.digest()
    assert few.save(tmp_path / "few.onnx").sha256 == asked.save(tmp_path / "asked.onnx").sha256
    assert (few.evaluation.n_samples, fewest.evaluation.n_samples) == (100, 80)
    assert any(note.startswith("memory: 80 of 100 samples are measured") for note in fewest.notes)
    assert not any("memory" in note for note in asked.notes)
