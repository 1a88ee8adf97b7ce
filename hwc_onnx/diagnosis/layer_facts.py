"""What is measured of a layer's weights under a plan: ranges of its channels, what repair could do, how the bias fits.

Nothing here is run through the network; everything follows from the weight, the moments of its inputs and the entry of
the layer database.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.database import LayerDatabase
from hwc_onnx.graph.layer_graph import FLOAT_BITS, Layer
from hwc_onnx.plan import LayerConfig
from hwc_onnx.quantization.bias_grid import HEADROOM, bias_steps, round_bias
from hwc_onnx.quantization.weights import symmetric_limit
from hwc_onnx.recovery.quadratic import output_power
from hwc_onnx.recovery.statistics import F64

DEAD = 1e-6
"""An input whose variance is below this share of the mean variance never changes."""

CONSTANT = 1e-12
"""An output whose variance is at most this share of its bias's square is constant: no error is large beside it."""


@dataclass(frozen=True)
class BiasFacts:
    """A bias as INT32 multiples of input scale x weight scale.

    `largest` is the largest multiple over 2^30 (above 1 it does not fit), `channels` how many do not fit, `error` the
    squared error of moving the bias to the grid relative to the variance of the output.
    """

    largest: float
    channels: int
    error: float


@dataclass(frozen=True)
class LayerFacts:
    """One layer under one setting.

    Attributes:
        columns: products that each output adds (d), `groups` of the convolution.
        patches: calibration positions that the layer was fitted to, None where it was not calibrated.
        outputs: channels; `output_ratio` is the largest range of one over the median, `top_output` the one with most
            variance, `top_share` its share of the output's variance, `spread` its standard deviation over the median's.
        input_ratio: largest range of the weights of one input channel over the median, at channel `outlier`.
        rounding_ratio: squared rounding error of all other weights with the outlier in their rows over that without it.
        dead: input columns that never change, or are always zero.
        error, error_fit: relative output error of the entry on held-out images and on those fitted to.
        plain_error: the same without compensation (recovery "ranges").
        pruned_error: the same with the mask alone, weights not rounded (0 without a mask).
    """

    columns: int
    groups: int
    patches: int | None
    outputs: int
    output_ratio: float
    top_output: int
    top_share: float
    spread: float
    input_ratio: float
    outlier: int
    rounding_ratio: float
    dead: int
    error: float
    error_fit: float
    plain_error: float
    pruned_error: float
    bias: BiasFacts | None


def layer_facts(
    layer: Layer, config: LayerConfig, database: LayerDatabase, plain: LayerDatabase, input_bits: int
) -> LayerFacts:
    """The facts of a layer that has weights.

    Args:
        layer: the layer.
        config: its setting; channels that the plan removes elsewhere are not looked at.
        database: as the plan is built from.
        plain: the same with recovery "ranges".
        input_bits: width of the tensor that it reads (16: float).
    """
    view = database.views[layer.key]
    layout, rows = view.layout, view.rows
    measured = view.measured
    entry = database.entry(layer.key, config)
    float_config = config.model_copy(update={"weight_bits": FLOAT_BITS})
    pruned = database.entry(layer.key, float_config).error_heldout if config.algorithm != "none" else 0.0
    ranges = np.abs(rows).max(axis=2).reshape(-1)
    power = output_power(rows, view.statistics.fit).reshape(-1)
    moment = np.einsum("gdd->gd", view.statistics.fit.second_moment(True))
    by_channel = np.abs(rows).reshape(layout.groups, layout.rows, layout.stack, layout.channels, layout.taps)
    input_ranges = by_channel.max(axis=(1, 2, 4))
    group, outlier = (int(place) for place in np.unravel_index(input_ranges.argmax(), input_ranges.shape))
    return LayerFacts(
        columns=layout.width,
        groups=layout.groups,
        patches=None if measured is None else measured.fit.rows,
        outputs=layout.outputs,
        output_ratio=_over_median(ranges),
        top_output=int(power.argmax()),
        top_share=float(power.max() / max(power.sum(), 1e-30)),
        spread=_over_median(np.sqrt(power)),
        input_ratio=_over_median(input_ranges[group]),
        outlier=group * layout.channels + outlier,
        rounding_ratio=_rounding_ratio(
            rows[group], moment[group], layout.columns(np.array([outlier])), min(config.weight_bits, 8)
        ),
        dead=0 if measured is None else int((moment <= DEAD * max(float(moment.mean()), 1e-30)).sum()),
        error=entry.error_heldout,
        error_fit=entry.error_fit,
        plain_error=plain.entry(layer.key, config).error_heldout,
        pruned_error=pruned,
        bias=_bias(layer, config, database, input_bits, float(power.mean())),
    )


def _over_median(values: F64) -> float:
    """The largest over the median of those above zero (1 where there is none)."""
    alive = values[values > 0]
    return float(alive.max() / np.median(alive)) if alive.size else 1.0


def _rounding_ratio(rows: F64, moment: F64, outlier: NDArray[np.int64], bits: int) -> float:
    """How much larger the rounding error of the other weights is because the outlier's columns set the scale of their rows.

    `rows` [rows, d] of one group, `moment` [d] weighs the columns. Round to nearest with the scale of the largest weight.
    """
    others = np.setdiff1d(np.arange(rows.shape[1]), outlier)
    if not others.size:
        return 1.0
    limit = symmetric_limit(bits)
    errors = []
    for source in (rows, rows[:, others]):
        scale = np.abs(source).max(axis=1, keepdims=True) / limit
        scale = np.where(scale > 0, scale, 1.0)
        difference = rows[:, others] - np.clip(np.rint(rows[:, others] / scale), -limit, limit) * scale
        errors.append(float((difference**2 * moment[others]).sum()))
    return errors[0] / errors[1] if errors[1] > 0 else 1.0


def strongest_input(layer: Layer, database: LayerDatabase) -> tuple[float, int] | None:
    """Root mean square of a layer's strongest input channel over the median's, and which channel; None if not measured."""
    if layer.weight is None:
        return None
    view = database.views[layer.key]
    layout = view.layout
    if view.measured is None or layout.stack > 1:
        return None
    square = np.einsum("gdd->gd", view.measured.fit.second_moment(False))
    strength = np.sqrt(square.reshape(layout.groups * layout.channels, layout.taps).mean(axis=1))
    return _over_median(strength), int(strength.argmax())


def _bias(
    layer: Layer, config: LayerConfig, database: LayerDatabase, input_bits: int, variance: float
) -> BiasFacts | None:
    """How the bias of the entry lies on the grid of the integers; None where nothing is an integer, or there is no bias."""
    weight = database.entry(layer.key, config).weight
    if weight.bias is None or weight.params is None or input_bits >= FLOAT_BITS:
        return None
    input_scale = float(database.activation_params(layer.inputs[0], input_bits).scale)
    steps = bias_steps(weight.params.scale, input_scale, weight.bias.size)
    multiples = np.abs(weight.bias.astype(np.float64)) / steps / HEADROOM
    fits = multiples <= 1.0
    error = (
        float(np.square(round_bias(weight.bias, steps).astype(np.float64) - weight.bias)[fits].sum()) / weight.bias.size
    )
    constant = variance <= CONSTANT * float(np.square(weight.bias.astype(np.float64)).mean())
    return BiasFacts(float(multiples.max()), int((~fits).sum()), 0.0 if constant else error / variance)
