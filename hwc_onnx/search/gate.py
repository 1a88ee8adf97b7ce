"""The final gate: which of the best plans may be written, judged once on samples that the search never saw.

The plans are put in order from the safest to the most aggressive before the holdout is opened. Each is tested against
"its drop exceeds the limit"; the walk ends at the first that cannot reject this, and the last that could is returned.
Such a fixed sequence keeps the chance of accepting any plan that breaks the limit at 5% in all, without a correction
for the number of looks. Every plan is measured with all graph optimisations and with none; both must pass.

Source: Maurer, Hothorn and Lehmacher, in: Biometrie in der chemisch-pharmazeutischen Industrie 6 (1995), 3-18 (fixed
sequence); Berger, Technometrics 24 (1982), 295-300 (both levels must reject: each is tested at the full level).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from hwc_onnx.accuracy.measure import Measurement, measure_paired
from hwc_onnx.accuracy.metrics import Metric, SessionMetric, unit_of
from hwc_onnx.accuracy.reference import Model, Reference
from hwc_onnx.accuracy.runner import Level
from hwc_onnx.accuracy.statistics import drop_upper_bound, normal_quantile
from hwc_onnx.accuracy.types import Evaluation
from hwc_onnx.errors import RuntimeFailure, UsageError
from hwc_onnx.search.problem import Outcome

Mode = Literal["upper", "point"]
CONFIDENCE = 0.95
MOST_LOOKS = 8
ASSUMED_DISAGREEMENT = 0.04
"""Share of samples on which original and candidate differ, where no candidate was measured (assumed)."""
_ROUNDING = 1e-9
"""A drop of exactly the limit passes, whatever the last bits of its arithmetic."""
LEVELS: tuple[Level, ...] = ("disable", "all")


@dataclass(frozen=True)
class Judging:
    """What a search knows of its gate: how many `samples` the holdout has (0: there is no gate), and the mode asked for (None: as these allow)."""

    samples: int = 0
    requested: str | None = None

    def mode(self, half_width: float, limit_points: float) -> Mode:
        """The mode asked for, else `upper` where the bound's expected half-width is below half the limit."""
        if self.requested is not None:
            return "upper" if self.requested == "upper" else "point"
        return "upper" if half_width < limit_points / 2.0 else "point"

    def half_width(self, spread: float) -> float:
        """Expected half-width in points of the bound, for a standard deviation of one sample's paired drop."""
        return normal_quantile(CONFIDENCE) * spread / math.sqrt(self.samples)


@dataclass(frozen=True)
class Look:
    """One model measured on the holdout.

    `evaluation` is the worse of the two optimisation levels; `at_disable_all` and `at_enable_all` are the metric's
    values there. `upper_bound_points` is the one-sided 95% upper bound of the drop at the worse level (None for a
    metric without per-sample values). `passed` says whether the gate accepts it; `failure` why it could not be measured.
    """

    evaluation: Evaluation
    at_disable_all: float
    at_enable_all: float
    upper_bound_points: float | None
    passed: bool
    failure: str | None = None

    def payload(self) -> dict[str, Any]:
        """Plain values for result.json; what could not be measured is null."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


@dataclass(frozen=True)
class Gate:
    """How plans are judged on the holdout: `mode` by the upper bound or the point estimate of the drop.

    `images_needed` is how many samples `upper` would take; `note` says what was decided and why. `levels` are those of ONNX Runtime's
    optimisation at which a plan must pass.
    """

    holdout: Reference
    limit_points: float
    mode: Mode
    images_needed: int
    note: str
    seed: int = 0
    threads: int | None = None
    levels: tuple[Level, ...] = LEVELS

    @classmethod
    def choose(
        cls,
        requested: str | None,
        holdout: Reference,
        limit_points: float,
        *,
        expected: Sequence[Evaluation | Outcome] = (),
        seed: int = 0,
        threads: int | None = None,
    ) -> Gate:
        """Decide the mode from what is known before the holdout is opened.

        Args:
            requested: "upper", "point", or None: `upper` when the expected half-width of the bound is below half the
                limit, else `point`.
            holdout: the original measured on the holdout.
            limit_points: the largest allowed drop.
            expected: the candidates' measurements on the search split, which tell the spread of the paired drop.
            seed: of the bootstrap.
            threads: threads to use.

        Raises:
            UsageError: `upper` for a metric without per-sample values.
        """
        if requested not in (None, "upper", "point"):
            raise UsageError(f"gate '{requested}': choose upper or point")
        name, n = holdout.metric.name, len(holdout)
        if isinstance(holdout.metric, SessionMetric):
            if requested == "upper":
                raise UsageError(
                    f"gate upper: metric {name} gives one number without samples, so its drop has no bound; use --gate "
                    "point, or a metric of (outputs, labels)"
                )
            return cls(
                holdout, limit_points, "point", 0, f"gate: point, because metric {name} has no interval", seed, threads
            )
        judging, spread = Judging(n, requested), _spread(holdout, expected)
        half_width = judging.half_width(spread)
        mode = judging.mode(half_width, limit_points)
        needed = math.ceil(n * (half_width / (limit_points / 2)) ** 2) if limit_points > 0 else 0
        about = f"expected half-width {half_width:.2f} {unit_of(name)} on {n} samples, limit {limit_points:.2f}"
        if requested is not None:
            return cls(holdout, limit_points, mode, needed, f"gate: {mode}, as asked for ({about})", seed, threads)
        if mode == "upper":
            note = f"gate: upper, the drop's 95% upper bound must respect the limit ({about})"
            return cls(holdout, limit_points, "upper", needed, note, seed, threads)
        more = f"; upper would need about {needed} samples" if needed else ""
        note = f"gate: point, the drop's estimate must respect the limit ({about}{more})"
        return cls(holdout, limit_points, "point", needed, note, seed, threads)

    def walk(self, models: Sequence[Model], on_look: Callable[[int], None] | None = None) -> tuple[int | None, list[Look]]:
        """Measure `models`, the safest first, until one fails; `on_look` hears how many were measured.

        Returns:
            The position of the last that passed (None: not even the first) and every look, in order.

        Raises:
            UsageError: more than eight models; choose before the holdout is opened.
        """
        if len(models) > MOST_LOOKS:
            raise UsageError(
                f"the final gate judges at most {MOST_LOOKS} plans, got {len(models)}; choose among them first"
            )
        looks: list[Look] = []
        for model in models:
            looks.append(self.look(model))
            if on_look is not None:
                on_look(len(looks))
            if not looks[-1].passed:
                break
        passed = sum(look.passed for look in looks)
        return (passed - 1 if passed else None), looks

    def look(self, model: Model) -> Look:
        """Measure one model at all levels; a model that does not run fails with its reason."""
        try:
            found = [measure_paired(model, self.holdout, threads=self.threads, level=level) for level in self.levels]
        except RuntimeFailure as error:
            return Look(self._unmeasured(), math.nan, math.nan, None, False, str(error))
        bounds = [self._bound(measured) for measured in found]
        drops = [measured.evaluation.drop_points for measured in found]
        judged = bounds if self.mode == "upper" else drops
        worse = max(range(len(found)), key=lambda i: (judged[i], drops[i]))
        upper = bounds[worse]
        return Look(
            evaluation=found[worse].evaluation,
            at_disable_all=found[0].evaluation.value,
            at_enable_all=found[-1].evaluation.value,
            upper_bound_points=upper if math.isfinite(upper) else None,
            passed=max(judged) <= self.limit_points + _ROUNDING,
        )

    def _bound(self, measured: Measurement) -> float:
        """One-sided upper bound of the drop in points; infinite where the metric has no per-sample values."""
        if len(measured.differences) < 2:
            return math.inf
        scale = self.holdout.metric.scale
        shift = measured.evaluation.drop_points - float(measured.differences.mean()) * scale
        rng = np.random.default_rng([self.seed, 0x6A7E])
        continuous = isinstance(self.holdout.metric, Metric) and self.holdout.metric.continuous
        return drop_upper_bound(measured.differences, rng, CONFIDENCE, continuous) * scale + shift

    def _unmeasured(self) -> Evaluation:
        value = self.holdout.value
        original = math.nan if value is None else value
        nothing = (math.nan, math.nan)
        return Evaluation(
            self.holdout.metric.name, math.nan, original, math.nan, nothing, math.nan, 0, math.nan, math.nan, 0, ""
        )


def _spread(holdout: Reference, expected: Sequence[Evaluation | Outcome]) -> float:
    """Standard deviation in points of one sample's paired drop."""
    measured = [one.standard_error * math.sqrt(one.n_samples) for one in expected if one.n_samples > 1]
    if measured and max(measured) > 0:
        return max(measured)
    return holdout.metric.scale * math.sqrt(ASSUMED_DISAGREEMENT)


def _plain(value: Any) -> Any:
    """Lists and dictionaries for JSON, with null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
