"""Ranges of least relative entropy: against every threshold of a tiny histogram, and against the definition."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from hwc_onnx.quantization import entropy
from hwc_onnx.quantization.entropy import divergence, least_divergence
from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.quantization.quantizer import QuantParams
from hwc_onnx.quantization.ranges import activation_params, range_params

BINS = 14


def tiny(values: np.ndarray) -> StreamingHistogram:
    histogram = StreamingHistogram(BINS)
    histogram.update(values.astype(np.float32))
    return histogram


def drawn(seed: int, kind: str) -> StreamingHistogram:
    rng = np.random.default_rng(seed)
    values = rng.standard_t(3, 400) * 0.7
    return tiny({"both sides": values, "positive": np.maximum(values, 0), "negative": np.minimum(values, 0)}[kind])


def by_definition(histogram: StreamingHistogram, params: QuantParams) -> float:
    """KL(P || Q), bin by bin and in plain numbers."""
    scale, zero = float(params.scale), int(params.zero_point)
    low, high = (params.qmin - zero) * scale, (params.qmax - zero) * scale
    width = histogram.width
    filled = [i for i in range(BINS) if histogram.counts[i]]
    left = {i: (histogram.start + i) * width for i in filled}
    inside = [i for i in filled if left[i] < high * (1 + 1e-6) and left[i] + width > low * (1 + 1e-6)]
    if not inside:
        return math.inf
    p = {i: float(histogram.counts[i]) for i in inside}
    p[inside[-1]] += sum(histogram.counts[i] for i in filled if i > inside[-1])
    p[inside[0]] += sum(histogram.counts[i] for i in filled if i < inside[0])
    code = {i: min(max(round((left[i] + width / 2) / scale) + zero, params.qmin), params.qmax) for i in inside}
    q = {}
    for i in inside:
        alike = [j for j in inside if code[j] == code[i]]
        q[i] = sum(histogram.counts[j] for j in alike) / len(alike)
    all_p, all_q = sum(p.values()), sum(q.values())
    return sum(p[i] / all_p * math.log((p[i] / all_p) / (q[i] / all_q)) for i in inside)


def every_range(histogram: StreamingHistogram, symmetric: bool) -> list[tuple[float, float]]:
    middles = histogram.centers()[0]
    below = [0.0, *(-x for x in middles if 0 > x > histogram.minimum), -min(histogram.minimum, 0.0)]
    above = [0.0, *(x for x in middles if 0 < x < histogram.maximum), max(histogram.maximum, 0.0)]
    if symmetric:
        return [(-far, far) for far in (*below, *above) if far > 0]
    ends = [[far for far in side if far > 0] or [0.0] for side in (below, above)]
    return [(-low, high) for low in ends[0] for high in ends[1]]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("kind", ["both sides", "positive", "negative"])
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_range_is_the_best_of_all_thresholds(seed: int, bits: int, kind: str, symmetric: bool) -> None:
    histogram = drawn(seed, kind)
    make = partial(range_params, bits=bits, symmetric=symmetric)
    options = [make(*ends) for ends in every_range(histogram, symmetric)]
    full = make(histogram.minimum, histogram.maximum)
    usable = [params for params in options if float(params.scale) >= histogram.width]
    least = min(by_definition(histogram, params) for params in [*usable, full])
    found = activation_params(histogram, bits, "entropy", symmetric)
    assert by_definition(histogram, found) == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_divergence_is_that_of_the_definition(seed: int) -> None:
    histogram = drawn(seed, "both sides")
    for low, high in [(-1.0, 2.0), (-0.3, 0.3), (-5.0, 1.0), (0.0, 0.7)]:
        params = range_params(low, high, 2)
        assert divergence(histogram, params) == pytest.approx(by_definition(histogram, params), abs=1e-12)


def test_a_search_that_forgets_what_is_clipped_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin: P without the clipped values; nothing speaks against a range of next to nothing then."""
    cut = StreamingHistogram.centers

    def inside_only(histogram: StreamingHistogram, params: QuantParams) -> float:
        low, high = ((edge - int(params.zero_point)) * float(params.scale) for edge in (params.qmin, params.qmax))
        monkeypatch.setattr(StreamingHistogram, "centers", lambda self: kept(self, low, high))
        try:
            return divergence(histogram, params)
        finally:
            monkeypatch.setattr(StreamingHistogram, "centers", cut)

    def kept(histogram: StreamingHistogram, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        centers, counts = cut(histogram)
        stays = (centers > low) & (centers < high)
        return centers[stays], counts[stays]

    histogram = StreamingHistogram()
    histogram.update(np.random.default_rng(0).standard_normal(20_000))
    right = activation_params(histogram, 4, "entropy")
    monkeypatch.setattr(entropy, "divergence", inside_only)
    wrong = activation_params(histogram, 4, "entropy")
    assert float(wrong.scale) < 0.7 * float(right.scale)


def test_ranges_clip_a_few_outliers_and_keep_a_uniform_tensor_whole() -> None:
    rng = np.random.default_rng(0)
    for bits in range(2, 9):
        normal, uniform = StreamingHistogram(), StreamingHistogram()
        normal.update(np.append(rng.standard_normal(50_000), [40.0, -30.0]))
        uniform.update(rng.uniform(0, 1, 50_000))
        clipped, whole = (activation_params(one, bits, "entropy") for one in (normal, uniform))
        assert float(clipped.scale) * clipped.qmax < 16
        assert float(whole.scale) * whole.qmax > 0.9


def test_exact_zeros_change_nothing() -> None:
    values = np.random.default_rng(1).exponential(size=3000).astype(np.float32)
    without, among = StreamingHistogram(), StreamingHistogram()
    without.update(values)
    among.update(np.append(values, np.zeros(50_000, np.float32)))
    for bits in (2, 4, 8):
        assert activation_params(without, bits, "entropy") == activation_params(among, bits, "entropy")


def test_the_other_side_stays_where_only_one_is_searched() -> None:
    histogram = drawn(0, "positive")
    low, high = least_divergence(histogram, partial(range_params, bits=2), mirrored=False)
    assert low == 0.0 and 0 < high <= histogram.maximum
