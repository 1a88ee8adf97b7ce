"""Factors that make the channels of a tensor use its one quantizer alike.

A tensor has one step for all its channels, so a channel of small values is rounded coarsely. With factors s the rounding
noise of a stored tensor is step(s)^2 / 12 in scaled units, and s_c times less in channel c of the original; what it does
to a reader's output is the sum of its squared weights on that channel. The reader's weights are rounded too, one step per
output row, and the factors change which of them is the largest. Both noises, relative to the power of the readers'
outputs, are

    sum_T  (max_c s_c peak_Tc / L)^2  sum_c amp_c / s_c^2   +   sum_readers sum_i (max_c |w_ic| / s_c / L)^2 sum_c s_c^2 m_c

with L the levels of the widths: 8 bits for activations, 4 for weights. Weights are rounded to fewer bits in most plans that are
worth having, and factors chosen for equal widths help 8-bit weights a little and harm narrow ones by more. Factors come from
the family s_c = peak_c^-a * column_c^b (column_c the largest weight that reads channel c), which holds full equalization
(a = 1, b = 0), that of the paper (a = b = 1/2: ranges of activations and of weights alike) and none (a = b = 0); the least
sum is taken.

Source: Nagel et al. (ICCV 2019), section 4.1, for the scaling; the noise of a uniform quantizer, step^2 / 12, carried
through the linear readers, for the choice. Xiao et al., SmoothQuant (ICML 2023), equation 4, has the same family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.scale_domains import Domain, Place
from hwc_onnx.recovery.statistics import F64

LEVELS = 255.0
WEIGHT_LEVELS = 7.0
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
WIDEST = 32.0
"""Largest factor, and the inverse of the smallest."""
HEADROOM = 2.0
"""A Clip counts as a Relu where its bound is this many times the largest value seen."""
WORTHWHILE = 0.98
"""A domain is scaled where that leaves no more than this share of the noise."""


@dataclass(frozen=True)
class Channels:
    """One tensor's channels as calibration saw them: smallest and largest value, mean, mean square [positions]."""

    low: F64
    top: F64
    mean: F64
    power: F64

    @property
    def peak(self) -> F64:
        """Largest magnitudes [positions]."""
        return np.maximum(np.abs(self.low), np.abs(self.top))

    def moved(self, by: F64) -> Channels:
        """The channels with `by` [positions] subtracted."""
        return Channels(self.low - by, self.top - by, self.mean - by, self.power - 2 * by * self.mean + by**2)


@dataclass(frozen=True)
class Reader:
    """A layer that reads a domain: its weight as [rows, channels] of largest magnitudes and of sums of squares.

    `apart` says that each row reads one channel only (depthwise): its weights are rounded on a scale of their own.
    """

    largest: F64
    squares: F64
    apart: bool


def reader(weight: NDArray[np.generic], place: Place, output_axis: int, channels: int) -> Reader:
    """The reader whose `weight` has the domain along `place.axis` and its rows along `output_axis`."""
    values = np.asarray(weight, dtype=np.float64)
    if place.axis == output_axis:
        flat = np.moveaxis(values, output_axis, 0).reshape(values.shape[output_axis], -1)
        largest, squares = (np.zeros((len(flat), channels)) for _ in range(2))
        rows = np.flatnonzero(place.index >= 0)
        largest[rows, place.index[rows]] = np.abs(flat[rows]).max(axis=1)
        squares[rows, place.index[rows]] = (flat[rows] ** 2).sum(axis=1)
        return Reader(largest, squares, apart=True)
    moved = np.moveaxis(values, (output_axis, place.axis), (0, 1))
    taps = moved.reshape(moved.shape[0], moved.shape[1], -1)
    largest, squares = (np.zeros((len(taps), channels)) for _ in range(2))
    inside = np.flatnonzero(place.index >= 0)
    np.maximum.at(largest.T, place.index[inside], np.abs(taps).max(axis=2)[:, inside].T)
    np.add.at(squares.T, place.index[inside], (taps**2).sum(axis=2)[:, inside].T)
    return Reader(largest, squares, apart=False)


def factors(
    domain: Domain, seen: Mapping[str, Channels], stored: Sequence[str], readers: Sequence[Reader]
) -> F64 | None:
    """The factor of each channel [channels]; None where nothing is worth changing.

    Args:
        domain: the tensors.
        seen: their channels in calibration, by tensor.
        stored: those of them that have a quantizer.
        readers: the layers that read them.
    """
    tensors = [place for place in domain.tensors if place.tensor in seen and place.tensor in stored]
    if not tensors or not readers:
        return None
    peak, power, top = (np.zeros(domain.channels) for _ in range(3))
    for place in (place for place in domain.tensors if place.tensor in seen):
        inside = place.index >= 0
        for total, values in ((peak, seen[place.tensor].peak), (power, seen[place.tensor].power), (top, seen[place.tensor].top)):
            np.maximum.at(total, place.index[inside], values[inside])
    alive = peak > 0
    if alive.sum() < 2:
        return None
    column = np.max([found.largest.max(axis=0) for found in readers], axis=0)
    usable = alive & (column > 0)
    if domain.ceiling is not None and top.max() * HEADROOM > domain.ceiling:
        return None
    plain = np.ones(domain.channels)
    best, least = None, WORTHWHILE * _noise(plain, tensors, seen, power, readers)
    for a, b in product(EXPONENTS, EXPONENTS):
        chosen = _family(peak, column, usable, a, b)
        if domain.ceiling is not None:
            chosen *= min(1.0, top.max() / (chosen * top).max())
        noise = _noise(chosen, tensors, seen, power, readers)
        if noise < least:
            best, least = chosen, noise
    return best


def product_factors(domain: Domain, seen: Mapping[str, Channels]) -> F64 | None:
    """The factors of two tensors that are multiplied and summed over the channels [channels]: one is multiplied by them, the
    other divided (`Place.power`). None where nothing is worth changing.

    What rounding one of them does to the sum is step^2 / 12 times the power of the other, over the channels; the factors are
    of the family that `factors` takes, with the peaks of the other tensor in place of the weights.
    """
    places = sorted((place for place in domain.tensors if place.tensor in seen), key=lambda place: -place.power)
    if [place.power for place in places] != [1, -1]:
        return None
    peaks = [_spread(domain.channels, place, seen[place.tensor].peak) for place in places]
    powers = [_spread(domain.channels, place, seen[place.tensor].power) for place in places]
    usable = (peaks[0] > 0) & (peaks[1] > 0)
    if usable.sum() < 2:
        return None

    def noise(scale: F64) -> float:
        total = 0.0
        for place, power in zip(places, reversed(powers), strict=True):
            moved = scale**place.power
            factor = np.where(place.index >= 0, moved[place.index], 1.0)
            step = float((factor * seen[place.tensor].peak).max()) / LEVELS
            total += step**2 * float((power / moved**2).sum())
        return total

    best, least = None, WORTHWHILE * noise(np.ones(domain.channels))
    for a, b in product(EXPONENTS, EXPONENTS):
        chosen = _family(peaks[0], peaks[1], usable, a, b)
        if noise(chosen) < least:
            best, least = chosen, noise(chosen)
    return best


def _spread(channels: int, place: Place, values: F64) -> F64:
    """The largest of the values of each channel of the domain."""
    found = np.zeros(channels)
    inside = place.index >= 0
    np.maximum.at(found, place.index[inside], values[inside])
    return found


def _family(peak: F64, column: F64, usable: NDArray[np.bool_], a: float, b: float) -> F64:
    chosen = np.ones(len(peak))
    logs = b * np.log(column[usable]) - a * np.log(peak[usable])
    chosen[usable] = np.exp(np.clip(logs - np.median(logs), -np.log(WIDEST), np.log(WIDEST)))
    return chosen


def _noise(
    scale: F64, tensors: Sequence[Place], seen: Mapping[str, Channels], power: F64, readers: Sequence[Reader]
) -> float:
    """The sum of the module's text, each reader relative to the power of its output."""
    amplified = np.zeros(len(scale))
    rounding = 0.0
    for found in readers:
        output = max(float((found.squares @ power).sum()), 1e-30)
        amplified += found.squares.sum(axis=0) / output
        if not found.apart:
            steps = (found.largest / scale).max(axis=1) / WEIGHT_LEVELS
            rounding += float((steps**2).sum() * (scale**2 * power).sum()) / output
    total = rounding
    for place in tensors:
        inside = place.index >= 0
        factor = np.where(inside, scale[place.index], 1.0)
        step = float((factor * seen[place.tensor].peak).max()) / LEVELS
        here = np.zeros(len(scale), dtype=bool)
        here[place.index[inside]] = True
        total += step**2 * float((amplified[here] / scale[here] ** 2).sum())
    return total
