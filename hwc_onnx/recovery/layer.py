"""One layer's repaired versions: every setting asked for, made from the layer's weight and its input moments alone.

A setting goes through: least-squares target on the kept inputs and under rounding noise -> mask -> compensation of the
mask -> weighted scale search -> OBS rounding -> scale refit -> coordinate descent over the codes -> refit. Several
variants are made (with and without descent, each code range of the width, with and without a polish under rounding
noise; without any repair where there are fewer samples than inputs), and each output row takes the one with the least error
on images that were not used for fitting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import FLOAT_BITS
from hwc_onnx.pruning.base import WeightContext, runs_of
from hwc_onnx.recovery.across_rows import across_rows
from hwc_onnx.recovery.bias import corrected_bias
from hwc_onnx.recovery.block_masks import select_blocks, side_by_side
from hwc_onnx.recovery.byte_cache import ByteCache
from hwc_onnx.recovery.coordinate import descend_values
from hwc_onnx.recovery.exact_masks import exact_mask, narrow, row_tables
from hwc_onnx.recovery.exchange import exchanged, solved
from hwc_onnx.recovery.folding import folded
from hwc_onnx.recovery.layout import RowLayout
from hwc_onnx.recovery.obs import obs_mask, obs_select
from hwc_onnx.recovery.quadratic import Quadratic, output_error, output_power, quadratic_of
from hwc_onnx.recovery.rounding import WIDE, Job, Variant, polish, round_jobs
from hwc_onnx.recovery.scales import ranges_of, search_scale, storable
from hwc_onnx.recovery.setting import RepairedRows, Setting, Taken
from hwc_onnx.recovery.statistics import F64, LayerStatistics, Moments

Recovery = Literal["full", "ranges", "none"]
RECOVERIES: tuple[Recovery, ...] = ("full", "ranges", "none")
STEPS: Mapping[str, int] = {"none": 1, "ranges": 24}
"""Scales tried for each row where nothing is repaired; one is that of the largest weight."""
NOISE_FLOOR = 5e-4
"""Rounding noise below this share of the mean input variance is left out of the problem."""


@dataclass(frozen=True)
class Judged:
    """A variant and the squared output error of its rows [groups, rows] on the held-out moments."""

    variant: Variant
    error: F64


class LayerRecovery:
    """Makes `RepairedRows` of one layer; keeps the last problems, masks and variants, which settings share.

    `rows` [groups, rows, d] are the original ones, `prior` what the least-squares refit leans towards (None: `rows`).
    The layer may read other inputs than those its targets come from: let the moments be those of both, one after the
    other, `rows` zero on the second half, `prior` the old rows, and `Setting.columns` the second half.
    """

    def __init__(
        self,
        layout: RowLayout,
        rows: F64,
        bias: NDArray[np.generic] | None,
        statistics: LayerStatistics,
        takes_bias: bool,
        recovery: Recovery = "full",
        portable: bool = False,
        cache: ByteCache | None = None,
        prior: F64 | None = None,
        taken: Taken | None = None,
        power_of_two: bool = False,
    ) -> None:
        self.layout = layout
        self.power_of_two = power_of_two
        self.taken = taken
        self.rows = rows
        self.prior = prior
        self.bias = None if bias is None else np.asarray(bias, dtype=np.float64).reshape(-1)
        self.statistics = statistics
        self.takes_bias = takes_bias
        self.recovery = recovery
        self.portable = portable
        self._power = np.maximum(output_power(self.rows, statistics.heldout), 1e-30)
        self._power_fit = np.maximum(output_power(self.rows, statistics.fit), 1e-30)
        self._cache = ByteCache(256 << 20) if cache is None else cache
        self._owner = object()
        power = np.einsum("gdd->", statistics.fit.second_moment(takes_bias)) / rows[:, 0].size
        self._noise_floor = NOISE_FLOOR * float(power)

    def build(self, setting: Setting, rival: Variant | None = None) -> RepairedRows:
        """The repaired rows of one setting; rows of `rival` stay where they do better."""
        if rival is None:
            return self.build_many([setting])[0]
        made = self._best(self._variants([setting])[self._key(setting)], setting)
        return self._finish(self._pick([made, self._judged(rival, setting)]), setting)

    def build_many(self, settings: Sequence[Setting]) -> list[RepairedRows]:
        """The repaired rows of several settings; those that read the same inputs are rounded together."""
        if self.recovery != "full":
            return [self._finish(self._judged(self._plain(setting), setting), setting) for setting in settings]
        made = self._variants(settings)
        return [self._finish(self._best(made[self._key(setting)], setting), setting) for setting in settings]

    def _variants(self, settings: Sequence[Setting]) -> dict[tuple[object, ...], list[Variant]]:
        """Variants made for noiseless inputs, by `_key`; what was made before is used again."""
        made: dict[tuple[object, ...], list[Variant]] = {}
        missing: dict[bytes, dict[tuple[object, ...], Setting]] = {}
        for setting in settings:
            key = self._key(setting)
            found = self._recall(key)
            if isinstance(found, list):
                made[key] = found
            else:
                missing.setdefault(_bytes(setting.columns), {})[key] = setting
        for together in missing.values():
            jobs: list[Job] = []
            owner: list[tuple[object, ...]] = []
            for key, setting in together.items():
                problem = self._problem(setting, 0.0)
                keep, values = self._masked(setting)
                made[key] = [] if setting.bits < FLOAT_BITS else [Variant(values, None)]
                if setting.bits < FLOAT_BITS:
                    jobs.append(Job(values, keep, ranges_of(setting.bits, self.portable)))
                    owner.append(key)
            how = (problem, jobs, self._settle, self.power_of_two, self.layout.tied)
            for key, variants in zip(owner, round_jobs(*how), strict=True):
                made[key] += variants
            for key in together:
                self._remember(key, made[key], sum(variant.codes.nbytes for variant in made[key]))
        return made

    def _best(self, variants: list[Variant], setting: Setting) -> Judged:
        """The rows with the least held-out error, after a polish under the rounding noise of the inputs."""
        if self.prior is None and self.statistics.fit.rows < self.layout.width:
            # what the samples do not determine can be worse repaired than left alone
            variants = [*variants, self._plain(setting)]
        best = self._pick([self._judged(variant, setting) for variant in variants])
        if setting.noise <= self._noise_floor:
            return best
        start = best.variant
        problem = self._problem(setting, setting.noise)
        keep, _ = self._masked(setting)
        if start.scale is None:
            whole = np.ones(problem.target.shape, dtype=bool) if keep is None else keep
            values = descend_values(start.values(), problem.target, problem.matrix, whole)
            return self._pick([best, self._judged(Variant(values, None), setting)])
        low, high = self._bounds(start.codes, setting.bits)
        polished = polish(problem, start, keep, low, high, self._settle)
        return self._pick([best, self._judged(polished, setting)])

    def _bounds(self, codes: NDArray[np.generic], bits: int) -> tuple[F64, F64]:
        """The code range of each row, as far as its codes tell: the first range that holds them."""
        least, most = codes.min(axis=2), codes.max(axis=2)
        low, high = np.full(least.shape, np.nan), np.full(least.shape, np.nan)
        for first, last in ranges_of(bits, self.portable):
            fits = np.isnan(low) & (least >= first) & (most <= last)
            low, high = np.where(fits, first, low), np.where(fits, last, high)
        return low, high

    def _plain(self, setting: Setting) -> Variant:
        """Masks and rounding without any repair; scales are searched for, with recovery "none" that of the largest weight is taken."""
        rows = self.rows if setting.into is None else folded(self.rows, setting.into)
        rows = rows if setting.columns is None else rows[:, :, setting.columns] * setting.rescale
        if setting.refit and setting.columns is not None:
            rows = self._problem(setting, 0.0).target
        if setting.kept is not None:
            rows = rows * setting.kept
        elif setting.mask is not None:
            rows = rows * self._scored_mask(setting, rows)
        if setting.bits >= FLOAT_BITS:
            return Variant(rows, None)
        low, high = ranges_of(setting.bits, self.portable)[0]
        ones = np.ones((self.layout.groups, rows.shape[2]))
        scale = search_scale(rows, ones, low, high, STEPS.get(self.recovery, STEPS["ranges"]), self.power_of_two)
        scale = self._settle(scale)
        return Variant(np.clip(np.rint(rows / scale[:, :, None]), low, high).astype(np.int8), scale)

    def _settle(self, scale: F64) -> F64:
        """Scales as they can be stored."""
        return storable(scale, self.layout.tied, self.power_of_two)

    def _problem(self, setting: Setting, noise: float) -> Quadratic:
        key = ("problem", _bytes(setting.columns), noise)
        found = self._recall(key)
        if found is None:
            found = quadratic_of(self.rows, self.statistics.fit, self.takes_bias, setting.columns, noise, self.prior)
            self._remember(key, found, found.target.nbytes + 2 * found.matrix.nbytes)
        assert isinstance(found, Quadratic)
        return found

    def _masked(self, setting: Setting) -> tuple[NDArray[np.bool_] | None, F64]:
        """The mask and the rows repaired for it, for noiseless inputs."""
        if setting.kept is not None:
            plain = self._problem(setting, 0.0)
            key = ("kept", *self._key(setting))
            found = self._recall(key)
            if not isinstance(found, tuple):
                values = obs_mask(plain.target, plain.factor, setting.kept)
                found = setting.kept, _solved(plain, values, setting.kept)
                if setting.mask is not None and (setting.mask.sequential or setting.mask.pattern is not None):
                    found = self._exchanged(setting, *found)
                self._remember(key, found, found[0].nbytes + found[1].nbytes)
            return found
        if setting.mask is None:
            return None, self._problem(setting, 0.0).target
        key = ("mask", *self._key(setting)[1:])
        found = self._recall(key)
        if not isinstance(found, tuple):
            plain = self._problem(setting, 0.0)
            if setting.mask.sequential:
                by = 1.0 if self.taken is None else self.taken.rows[:, :, None]
                keep, values = self._selected(setting, plain.target / by)
                values = values * by
            else:
                keep = self._scored_mask(setting, plain.target)
                values = obs_mask(plain.target, plain.factor, keep)
            found = keep, _solved(plain, values, keep)
            if setting.mask.sequential or setting.mask.pattern is not None:
                found = self._exchanged(setting, *found)
            self._remember(key, found, found[0].nbytes + found[1].nbytes)
        return found

    def _selected(self, setting: Setting, rows: F64) -> tuple[NDArray[np.bool_], F64]:
        """Zeros chosen while the rest of `rows` is repaired, and the repaired rows."""
        plain, runs = self._problem(setting, 0.0), self._runs(setting, rows.shape[2])
        if runs is None:
            return obs_select(rows, plain.factor, setting.ratio)
        key = ("side by side", setting.mask.block if setting.mask else None, _bytes(setting.columns))
        factor = self._recall(key)
        if not isinstance(factor, np.ndarray):
            factor = side_by_side(plain.matrix, plain.factor, runs)
            self._remember(key, factor, factor.nbytes)
        return select_blocks(rows, factor, runs, setting.ratio)

    def _runs(self, setting: Setting, width: int) -> NDArray[np.int64] | None:
        """The runs of input channels that a mask cares for; None where it takes every weight by itself."""
        mask = setting.mask
        size = None if mask is None else mask.block if mask.pattern is None else mask.pattern[1]
        alone = mask is not None and mask.block is not None and width == self.layout.taps
        return None if size is None or alone else runs_of(size, self.layout.taps, width)

    def _exchanged(
        self, setting: Setting, keep: NDArray[np.bool_], values: F64
    ) -> tuple[NDArray[np.bool_], F64]:
        """Mask and rows with zeros in better places: within rows, for the rows that err less on the held-out images so, then
        across rows where the whole layer does. A mask that is settled keeps the zeros of each row, N:M those of each run; blocks
        change places as wholes, within rows.
        """
        assert setting.mask is not None
        plain, runs = self._problem(setting, 0.0), self._runs(setting, keep.shape[2])
        whole = runs is not None and setting.mask.block is not None
        problem, unit = plain.scaled(plain.target.shape[2] >= WIDE)

        def finished(mask: NDArray[np.bool_], start: F64) -> tuple[NDArray[np.bool_], F64, F64]:
            rows = _solved(plain, start.astype(np.float64) * unit, mask)
            return mask, rows, self._judged(Variant(rows, None), setting).error

        start = (values / unit).astype(problem.target.dtype)
        error = self._judged(Variant(values, None), setting).error
        other, moved, reached = finished(
            *exchanged(start, problem.target, problem.matrix, problem.factor, keep, runs, settling=0, whole=whole)
        )
        better = (reached < error)[:, :, None]
        keep, values = np.where(better, other, keep), np.where(better, moved, values)
        if runs is not None or setting.kept is not None:
            return keep, values
        error = np.minimum(error, reached)
        if narrow(keep.shape):
            best = exact_mask(self._tables(setting), int((~keep).sum()))
            other, moved, reached = finished(best, plain.target / unit * best)
        else:
            start = (values / unit).astype(problem.target.dtype)
            other, moved, reached = finished(
                *across_rows(start, problem.target, problem.matrix, problem.factor, keep)
            )
        if reached.sum() < error.sum():
            return other, moved
        return keep, values

    def _tables(self, setting: Setting) -> tuple[F64, NDArray[np.int64]]:
        """Least errors of narrow rows by their number of zeros, which all ratios share."""
        key = ("tables", _bytes(setting.columns))
        found = self._recall(key)
        if not isinstance(found, tuple):
            plain = self._problem(setting, 0.0)
            found = row_tables(plain.target, plain.matrix)
            self._remember(key, found, found[0].nbytes + found[1].nbytes)
        return found

    def _scored_mask(self, setting: Setting, rows: F64) -> NDArray[np.bool_]:
        """The mask by the algorithm's own scores for `rows` [groups, rows, kept], on the weights as they were given."""
        assert setting.mask is not None
        columns = slice(None) if setting.columns is None else setting.columns
        power = np.einsum("gdd->gd", self.statistics.fit.second_moment(False))[:, columns]
        inverse = np.einsum("gkd,gkd->gd", *(2 * (self._problem(setting, 0.0).factor,)))
        if self.taken is not None:
            by = self.taken.columns[:, columns]
            rows = rows / (self.taken.rows[:, :, None] * by[:, None, :])
            power, inverse = power * by**2, inverse / by**2
        shape = (-1, rows.shape[2])
        context = WeightContext(
            self.layout.taps,
            np.broadcast_to(power[:, None], rows.shape).reshape(shape),
            np.broadcast_to(inverse[:, None], rows.shape).reshape(shape),
        )
        return setting.mask.keep(rows.reshape(shape), setting.ratio, context).reshape(rows.shape)

    def _pick(self, judged: Sequence[Judged]) -> Judged:
        """Per row, the variant with the least held-out error; for the whole layer where scales are tied."""
        errors = np.stack([one.error for one in judged])
        if self.layout.tied:
            return judged[int(errors.sum(axis=(1, 2)).argmin())]
        best = errors.argmin(axis=0)
        codes = np.stack([one.variant.codes for one in judged])
        group, row = np.indices(best.shape)
        scales = [one.variant.scale for one in judged if one.variant.scale is not None]
        scale = np.stack(scales)[best, group, row] if scales else None
        return Judged(Variant(codes[best, group, row], scale), errors[best, group, row])

    def _judged(self, variant: Variant, setting: Setting) -> Judged:
        """With its error on the held-out images."""
        return Judged(variant, self._error(variant, setting, self.statistics.heldout))

    def _error(self, variant: Variant, setting: Setting, moments: Moments) -> F64:
        centred = self.takes_bias and self.recovery == "full"
        exact = self.prior is not None
        return output_error(self.rows, variant.values(), moments, centred, setting.columns, setting.noise, exact)

    def _finish(self, judged: Judged, setting: Setting) -> RepairedRows:
        variant = judged.variant
        bias = None if self.bias is None else self.bias.astype(np.float32)
        if self.recovery == "full" and self.takes_bias:
            bias = corrected_bias(self.bias, self.rows, variant.values(), self.statistics.fit.mean, setting.columns)
        fit = self._error(variant, setting, self.statistics.fit).sum() / self._power_fit.sum()
        heldout = judged.error.sum() / self._power.sum()
        stored = variant.codes if variant.scale is not None else variant.codes.astype(np.float32)
        scale = None if variant.scale is None else variant.scale.astype(np.float32)
        return RepairedRows(stored, scale, bias, float(fit), float(heldout))  # type: ignore[arg-type]

    def _key(self, setting: Setting) -> tuple[object, ...]:
        """What the variants for noiseless inputs depend on."""
        name = None if setting.mask is None else setting.mask.name
        kept = b"" if setting.kept is None else np.packbits(setting.kept).tobytes()
        return setting.bits, name, round(setting.ratio, 6), _bytes(setting.columns), kept

    def _recall(self, key: tuple[object, ...]) -> object | None:
        found: object | None = self._cache.get((self._owner, key))
        return found

    def _remember(self, key: tuple[object, ...], value: object, size: int) -> None:
        self._cache.put((self._owner, key), value, size)


def _solved(problem: Quadratic, values: F64, keep: NDArray[np.bool_]) -> F64:
    """`solved`; in single precision where codes are looked for in single precision too."""
    scaled, unit = problem.scaled(values.shape[2] >= WIDE)
    found = solved((values / unit).astype(scaled.target.dtype), scaled.target, scaled.matrix, keep)
    return found.astype(np.float64) * unit


def _bytes(columns: NDArray[np.int64] | None) -> bytes:
    return b"" if columns is None else columns.tobytes()
