"""Whether a file computes (nearly) the same at all optimisation levels of ONNX Runtime.

Rounding flips make the levels differ a little: fused integer kernels add in another order, and a value within an ulp of
a rounding boundary then lands one step away. `LEVEL_TOLERANCE` bounds the relative error of the outputs that this may
cause; anything systematic (a lost bias, a wrong zero point, saturating products) is far above it. A network that hangs on
the last digits of its inputs may differ as much as those make it differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.runner import LEVELS, Level, open_session, run
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.normalize.compare import NUDGE

LEVEL_TOLERANCE = 0.1
"""Largest root-mean-square difference from DISABLE_ALL, relative to the outputs' own root mean square."""

LEVEL_DISAGREEMENT = 0.02
"""Largest share of samples whose largest output is another one than at DISABLE_ALL (one sample is always allowed)."""


@dataclass(frozen=True)
class Check:
    """One question: its short name, whether the answer is good, and what was found."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True)
class LevelResult:
    """One optimisation level against DISABLE_ALL: relative error of the outputs, share of equal largest outputs."""

    level: str
    opens: bool
    relative_error: float
    agreement: float
    message: str = ""


def run_levels(
    proto: onnx.ModelProto, samples: Samples, threads: int | None
) -> tuple[tuple[LevelResult, ...], dict[str, NDArray[Any]] | None]:
    """Each level against the first that opens (DISABLE_ALL, unless it fails)."""
    reference: dict[str, NDArray[Any]] | None = None
    results = []
    for level in LEVELS:
        try:
            found = _outputs(proto, samples, threads, level)
        except RuntimeFailure as error:
            results.append(LevelResult(level, False, float("inf"), 0.0, str(error)))
            continue
        reference = found if reference is None else reference
        results.append(LevelResult(level, True, relative_error(reference, found), same_largest(reference, found)))
    return tuple(results), reference


def _outputs(proto: onnx.ModelProto, samples: Samples, threads: int | None, level: Level) -> dict[str, NDArray[Any]]:
    return dict(run(open_session(proto, threads, level), samples))


def levels_agree(
    levels: tuple[LevelResult, ...], count: int, sensitivity: Callable[[], tuple[float, float]]
) -> Check:
    """Whether all levels that open agree; `sensitivity` is asked where they do not."""
    opened = [result for result in levels if result.opens]
    tolerance, allowed = LEVEL_TOLERANCE, max(LEVEL_DISAGREEMENT, 1 / count) + 1e-9

    def differing() -> list[LevelResult]:
        return [r for r in opened if r.relative_error > tolerance or 1 - r.agreement > allowed]

    bad, because = differing(), ""
    if bad:
        error, agreement = sensitivity()
        tolerance, allowed = max(tolerance, 2 * error), max(allowed, 2 * (1 - agreement))
        because = f"; inputs changed by a millionth change the outputs by {error:.2g}"
    shown = ", ".join(f"{result.level} {result.relative_error:.2g}" for result in bad or opened)
    return Check(
        "levels compute the same",
        bool(opened) and not differing(),
        f"relative difference: {shown}{because}" if shown else "none opens",
    )


def sensitivity(proto: onnx.ModelProto, samples: Samples, threads: int | None) -> tuple[float, float]:
    """Relative error and agreement of the model with itself when real inputs change in their last digits.

    A network of rounded numbers can hang on them: one flip at a quantizer, or between scores that are nearly tied, goes
    on to the outputs whatever level runs.
    """
    rng = np.random.default_rng(0)
    nudged = {
        name: (np.asarray(values, np.float64) * (1 + NUDGE * rng.choice([-1, 1], values.shape))).astype(values.dtype)
        if values.dtype.kind == "f"
        else values
        for name, values in samples.inputs.items()
    }
    first = _outputs(proto, samples, threads, "disable")
    second = _outputs(proto, Samples(nudged, None), threads, "disable")
    return relative_error(first, second), same_largest(first, second)


def relative_error(expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> float:
    """Root-mean-square difference over root mean square, the worst of all float outputs; infinite for other outputs."""
    if set(expected) != set(found):
        return float("inf")
    worst = 0.0
    for name, values in expected.items():
        if values.dtype.kind == "f":
            masked = np.isneginf(values) & np.isneginf(found[name]) if values.shape == found[name].shape else np.zeros((), bool)
            values = np.where(masked, 0.0, values)
            with np.errstate(invalid="ignore"):
                difference = np.where(masked, 0.0, np.asarray(found[name], np.float64)) - values
            scale = float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) or 1.0
            worst = max(worst, float(np.sqrt(np.mean(np.square(difference)))) / scale)
        elif not np.array_equal(values, found[name]):
            worst = max(worst, float(np.mean(values != found[name])))
    return worst


def has_answers(values: NDArray[Any]) -> bool:
    """Whether an output has several scores for each sample, one of which is the largest."""
    return bool(values.dtype.kind == "f" and values.ndim == 2 and values.shape[1] > 1)


def same_largest(expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> float:
    """Share of samples with the same largest element in every float output of rank 2 (1.0 when there is none)."""
    if set(expected) != set(found):
        return 0.0
    shares = [
        float(np.mean(np.argmax(values, axis=1) == np.argmax(found[name], axis=1)))
        for name, values in expected.items()
        if has_answers(values)
    ]
    return min(shares, default=1.0)
