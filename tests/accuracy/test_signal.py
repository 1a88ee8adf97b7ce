"""Samples without signal: a dead model must not look perfect on them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.metrics import METRICS
from hwc_onnx.accuracy.reference import make_reference, with_baseline
from hwc_onnx.accuracy.signal import audible, with_signal, without_hiss
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError
from hwc_onnx.verification import verify


def scaled(factors: tuple[float, ...]):
    """relu(x - 1) times a factor, for each output: zero where no x exceeds one."""
    names = [f"y{i}" for i in range(len(factors))]
    nodes = [helper.make_node("Sub", ["x", "one"], ["s"]), helper.make_node("Relu", ["s"], ["r"])]
    nodes += [helper.make_node("Mul", ["r", f"f{i}"], [name]) for i, name in enumerate(names)]
    constants = [helper.make_tensor(f"f{i}", TensorProto.FLOAT, [], [factor]) for i, factor in enumerate(factors)]
    constants.append(helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, 2, 4]) for name in ("x", *names)]
    return helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], constants), opset_imports=[helper.make_opsetid("", 17)])


def samples(silent: int, loud: int = 40) -> Samples:
    x = np.random.default_rng(0).uniform(0.0, 0.9, (silent + loud, 2, 2, 4)).astype(np.float32)
    x[silent:] += 1.0
    return Samples({"x": x}, None)


def test_a_dead_model_loses_all_its_signal() -> None:
    reference = with_baseline(make_reference(scaled((1.0,)), samples(360), "sqnr"), scaled((0.9,)))
    assert len(reference) == 40 and "360 of 400 samples are left out" in reference.note
    assert measure(scaled((0.9,)), reference).drop_points == pytest.approx(0.0, abs=1e-6)
    dead = measure(scaled((0.0,)), reference)
    assert dead.drop_points == pytest.approx(20.0, abs=0.1) and dead.value == pytest.approx(0.0, abs=1e-6)


def test_a_dead_model_would_be_perfect_on_silent_samples() -> None:
    """What the samples are left out for, and the value they have where nobody does."""
    zeros = {"y": np.zeros((3, 4), np.float32)}
    assert METRICS["sqnr"].rows(zeros, zeros, None, None).ravel() == pytest.approx(0.0)
    noise = {"y": np.ones((3, 4), np.float32)}
    assert METRICS["sqnr"].rows(noise, zeros, None, None).ravel() == pytest.approx(0.0)
    assert METRICS["cosine"].rows(zeros, zeros, None, None).ravel() == pytest.approx(1.0)


@pytest.mark.parametrize("metric", ["sqnr", "cosine"])
def test_nearly_all_silent_is_refused(metric: str) -> None:
    with pytest.raises(DataError, match=r"all zero on 390 of 400 samples.*--data"):
        make_reference(scaled((1.0,)), samples(390, 10), metric)
    assert len(make_reference(scaled((1.0,)), samples(390, 10), metric, fewest_heard=1)) == 10
    assert len(make_reference(scaled((1.0,)), samples(390, 10), "agreement", task="segmentation")) == 400


def test_the_worst_output_counts() -> None:
    both = scaled((1.0, 1.0))
    reference = with_baseline(make_reference(both, samples(0), "sqnr"), scaled((0.9, 0.9)))
    traded = measure(scaled((0.999, 0.8)), reference)
    assert traded.drop_points == pytest.approx(20.0 * np.log10(2.0), abs=0.01)
    cosine = make_reference(both, samples(0), "cosine")
    assert measure(scaled((1.0, -1.0)), cosine).value == pytest.approx(-1.0, abs=1e-6)


@pytest.mark.parametrize(("metric", "best"), [("sqnr", 20.0), ("cosine", 1.0)])
def test_an_output_that_is_silent_in_most_samples_counts_in_the_others(metric: str, best: float) -> None:
    """y0 answers everywhere (its bias), y1 where x exceeds one alone, at a floor of a millionth elsewhere."""
    rng = np.random.default_rng(1)
    loud = rng.uniform(1.0, 2.0, (60, 4))
    outputs = {"y0": rng.standard_normal((60, 4)), "y1": np.where(np.arange(60)[:, None] < 45, 1e-6, loud)}
    heard = audible(outputs)
    assert heard["y0"].all() and heard["y1"].sum() == 15 and len(with_signal(heard, metric)) == 60
    reference = without_hiss(outputs, heard)
    assert not reference["y1"][:45].any() and (reference["y1"][45:] == outputs["y1"][45:]).all()
    noisy = {"y0": 0.9 * outputs["y0"], "y1": np.where(np.arange(60)[:, None] < 45, 1e-3 * loud, 0.9 * loud)}
    assert METRICS[metric].rows(noisy, reference, None, None).ravel() == pytest.approx(best)
    dead = noisy | {"y1": np.zeros((60, 4))}
    assert (METRICS[metric].rows(dead, reference, None, None).ravel()[45:] < 0.01).all()


def test_one_loud_sample_does_not_silence_the_others() -> None:
    values = np.ones((100, 4))
    values[0] *= 1e5
    assert audible({"y": values})["y"].all()


def test_masks_with_minus_infinity_have_no_distance() -> None:
    """A broken twin said 120 dB, since infinity less infinity is no noise."""
    masked = np.array([[1.0, 2.0, -np.inf]] * 3)
    worse = np.array([[0.9, 1.8, -np.inf]] * 3)
    for metric, same, other in (("sqnr", 120.0, 20.0), ("cosine", 1.0, 1.0)):
        assert METRICS[metric].rows({"y": masked}, {"y": masked}, None, None).ravel() == pytest.approx(same)
        assert METRICS[metric].rows({"y": worse}, {"y": masked}, None, None).ravel() == pytest.approx(other)
    finite = np.where(np.isneginf(masked), 5.0, masked)
    assert (METRICS["sqnr"].rows({"y": finite}, {"y": masked}, None, None) < 0.0).all()


def test_verify_notices_a_dead_model() -> None:
    name = "outputs follow the original's"
    checks = [{check.name: check.passed for check in verify(scaled((factor,)), scaled((1.0,)), samples(10)).checks} for factor in (0.9, 0.0)]
    assert checks[0][name] and not checks[1][name]
    assert name not in {check.name for check in verify(scaled((0.0,)), scaled((1.0,)), samples(10), judged=True).checks}, "a metric decided"
    assert name not in {check.name for check in verify(scaled((0.0,)), scaled((1.0,)), input_shapes={"x": (1, 2, 2, 4)}).checks}, "made-up inputs"
