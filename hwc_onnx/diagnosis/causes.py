"""From measured facts of a layer to the named cause of its damage.

First the part of the layer that does most of the damage is found, by measuring the parts alone. Then the facts of that
part are gone through in a fixed order, the most special first; the first that lies beyond its bound is the cause, and
plain rounding is what is left. Every finding is told with its numbers, those of other parts as remarks.

The bounds are assumed: on the sample networks (resnet20, mobilenetv2_small, vit_tiny) ranges reach 2.4 times
their innermost 99.9%, 99% of the values lie on a quarter of the levels or more, and no channel stands out by more than 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hwc_onnx.diagnosis.facts import Facts
from hwc_onnx.diagnosis.layer_facts import LayerFacts
from hwc_onnx.diagnosis.shares import Part
from hwc_onnx.diagnosis.tensor_facts import TensorFacts

WIDE_RANGE = 4.0
FEW_LEVELS = 1 / 8
ONE_BIT = 4.0
"""Squared rounding error that one bit less makes."""
STANDS_OUT = 8.0
FEW_TAPS = 25
HALF = 0.5
NOTICED = 1.1
"""A ratio below this is not worth a number."""


@dataclass(frozen=True)
class Finding:
    """One fact beyond its bound: a short `name`, the part whose damage it explains (None: a remark that explains none),
    a sentence and its numbers.
    """

    name: str
    part: Part | None
    text: str
    numbers: dict[str, float]


def findings(facts: Facts) -> list[Finding]:
    """Everything that is beyond its bound, most special first, with plain rounding last of each part."""
    found = [*_channels(facts)]
    if facts.weights is not None:
        found += _weights(facts, facts.weights)
    for tensor in facts.tensors:
        found += _input(facts, tensor)
    if facts.weights is not None:
        found += _strong_output(facts.weights)
    return found


def cause_of(found: Sequence[Finding], part: Part | None) -> Finding | None:
    """The finding that explains the part which does most of the damage (None where nothing is compressed)."""
    return next((finding for finding in found if finding.part == part), None) if part is not None else None


def _channels(facts: Facts) -> Iterator[Finding]:
    cut = facts.cut
    if cut is None:
        return
    stuck = [(key, error, why) for key, error, why in cut.readers if why is not None]
    worst = max((error for _, error, _ in cut.readers), default=0.0)
    numbers = {
        "kept": float(cut.kept),
        "channels": float(cut.channels),
        "reader_error": worst,
        "stuck": float(len(stuck)),
    }
    gone = f"{cut.channels - cut.kept} of {cut.channels} channels are gone"
    if stuck:
        key, error, why = max(stuck, key=lambda item: item[1])
        yield Finding(
            "inputs_not_refitted",
            "channels",
            f"{gone}; of the layers that read them {len(stuck)} of {len(cut.readers)} cannot be refitted to what is left: "
            f"'{key}' {why} (relative output error {error:.2g})",
            numbers,
        )
    else:
        yield Finding(
            "channels_removed",
            "channels",
            f"{gone}: after their refit the layers that read them have a relative output error of {worst:.2g} at most",
            numbers,
        )


def _weights(facts: Facts, seen: LayerFacts) -> Iterator[Finding]:
    bits = facts.config.weight_bits
    bias = seen.bias
    if bias is not None and bias.channels:
        how = (
            "their weights are rounded again with the smallest scale that carries it"
            if facts.layer.op_type == "MatMul"
            else "it is added apart in float: exact, but one more operation that is not integer"
        )
        yield Finding(
            "bias_overflow",
            "weights" if facts.layer.op_type == "MatMul" else None,
            f"the bias of {bias.channels} of {seen.outputs} channels is up to {bias.largest:.3g} times what INT32 holds of input scale x weight "
            f"scale (2^30 multiples); {how}",
            {"channels": float(bias.channels), "largest": bias.largest},
        )
    if bias is not None and bias.error > HALF * max(seen.error, 1e-12):
        yield Finding(
            "bias_grid",
            "weights",
            f"the bias is rounded to multiples of input scale x weight scale, which is {bias.error:.2g} of the output's "
            f"variance; the whole relative output error is {seen.error:.2g}",
            {"bias_error": bias.error, "error": seen.error},
        )
    if facts.recovery != "full" and facts.full_error > 0 and seen.error >= 2.0 * facts.full_error:
        yield Finding(
            "not_repaired",
            "weights",
            f"recovery is '{facts.recovery}': relative output error {seen.error:.2g}, with recovery 'full' {facts.full_error:.2g}",
            {"error": seen.error, "full_error": facts.full_error},
        )
    if facts.recovery == "full" and seen.patches is None:
        yield Finding(
            "not_repaired",
            "weights",
            f"the layer was not calibrated, so it is rounded and pruned without repair: relative output error {seen.error:.2g} of "
            "inputs taken as white",
            {"error": seen.error},
        )
    if seen.rounding_ratio >= ONE_BIT and bits <= 8:
        yield Finding(
            "outlier_weights",
            "weights",
            f"the weights of input channel {seen.outlier} reach {seen.input_ratio:.3g} times the median channel's and set the "
            f"scale of their rows: the squared rounding error of all other weights is {seen.rounding_ratio:.3g} times larger "
            "than without them",
            {"channel": float(seen.outlier), "range_ratio": seen.input_ratio, "rounding_ratio": seen.rounding_ratio},
        )
    if seen.patches is not None and seen.patches < seen.columns:
        yield Finding(
            "few_samples",
            "weights",
            f"repaired from {seen.patches} calibration samples for {seen.columns} inputs: the rest is not determined "
            f"(relative error {seen.error_fit:.2g} on these samples, {seen.error:.2g} on others); more calibration samples would tell",
            {
                "patches": float(seen.patches),
                "inputs": float(seen.columns),
                "error_fit": seen.error_fit,
                "error": seen.error,
            },
        )
    if seen.groups > 1 and seen.columns <= FEW_TAPS:
        gain = seen.plain_error / seen.error if seen.error > 0 else 1.0
        kind = "depthwise" if facts.layer.weight_shape[1:2] == (1,) else "grouped"
        helped = f"; repair makes it {gain:.2g} times smaller than rounding alone" if gain >= NOTICED else "; repair hardly helps"
        helped = helped if facts.recovery == "full" else ""
        yield Finding(
            "few_taps",
            "weights",
            f"{kind}: each output has {seen.columns} weights, so the error of one can hardly be made up by others (relative "
            f"output error {seen.error:.2g}{helped})",
            {"taps": float(seen.columns), "error": seen.error, "gain": gain},
        )
    if seen.pruned_error > HALF * max(seen.error, 1e-12):
        yield Finding(
            "zeros",
            "weights",
            f"{facts.config.algorithm} at {facts.config.ratio:.0%}: the zeros alone make a relative output error of "
            f"{seen.pruned_error:.2g}, all together {seen.error:.2g}",
            {"pruned_error": seen.pruned_error, "error": seen.error},
        )
    if seen.dead:
        yield Finding(
            "dead_inputs",
            "weights" if seen.dead > HALF * seen.columns * seen.groups else None,
            f"{seen.dead} of {seen.columns * seen.groups} inputs never change in calibration: their weights are rounded blindly",
            {"dead": float(seen.dead), "inputs": float(seen.columns * seen.groups)},
        )
    if bits <= 8:
        then = "" if facts.next_error is None else f", {facts.next_error:.2g} with one bit more"
        yield Finding(
            "coarse_weights",
            "weights",
            f"at {bits} bits the layer has a relative output error of {seen.error:.2g}{then}",
            {
                "bits": float(bits),
                "error": seen.error,
                **({} if facts.next_error is None else {"next_error": facts.next_error}),
            },
        )


def _input(facts: Facts, seen: TensorFacts) -> Iterator[Finding]:
    beyond = f"{seen.range_ratio:.3g} times that of its innermost 99.9%"
    if seen.range_ratio < NOTICED:
        beyond = "that of its innermost 99.9%, where most values are small"
    held = f"99% of the values that are not zero lie on {seen.levels} of {2**seen.bits} levels"
    numbers = {
        "bits": float(seen.bits),
        "range_ratio": seen.range_ratio,
        "levels": float(seen.levels),
        "level_share": seen.level_share,
        "error": seen.error,
        "clipped_share": seen.clipped,
        "lost_share": seen.lost,
    }
    if seen.constant:
        yield Finding(
            "constant_input",
            "input",
            f"'{seen.tensor}' was {seen.low:.3g} throughout calibration: its range says nothing about other values",
            numbers,
        )
        return
    if seen.softmax:
        yield Finding(
            "softmax_input",
            "input",
            f"'{seen.tensor}' comes from a Softmax: {seen.lost:.1%} of its values are below half a step and become zero; {held}",
            numbers,
        )
    if seen.range_ratio >= WIDE_RANGE or seen.level_share < FEW_LEVELS:
        yield Finding(
            "outlier_input",
            "input",
            f"the range of '{seen.tensor}', {seen.low:.3g} .. {seen.high:.3g}, is {beyond}: {held}; {seen.clipped:.0%} of the "
            "error is clipping",
            numbers,
        )
    if facts.strongest is not None and facts.strongest[0] >= STANDS_OUT:
        ratio, channel = facts.strongest
        left = 2**seen.bits / ratio
        yield Finding(
            "strong_input_channel",
            "input",
            f"channel {channel} of '{seen.tensor}' is {ratio:.3g} times as strong (root mean square) as the median channel, to "
            f"which {left:.2g} of {2**seen.bits} levels are left",
            {"channel": float(channel), "ratio": ratio, "median_levels": left},
        )
    if facts.scores:
        yield Finding(
            "attention_scores",
            "input",
            f"the product goes into a Softmax, which multiplies errors of large scores: '{seen.tensor}' has a relative error of "
            f"{seen.error:.2g}",
            numbers,
        )
    if seen.clipped > HALF:
        yield Finding(
            "clipping",
            "input",
            f"{seen.clipped:.0%} of the error of '{seen.tensor}' is clipping: its range is too narrow",
            numbers,
        )
    yield Finding(
        "coarse_input",
        "input",
        f"'{seen.tensor}' at {seen.bits} bits has a relative error of {seen.error:.2g}, {1 - seen.clipped:.0%} of it rounding; {held}",
        numbers,
    )


def _strong_output(seen: LayerFacts) -> Iterator[Finding]:
    """An output channel that stands out: it harms the quantizer of the stored output, not the layer itself."""
    if seen.spread >= STANDS_OUT and seen.top_share > HALF:
        yield Finding(
            "strong_output_channel",
            None,
            f"output channel {seen.top_output} has {seen.top_share:.0%} of the output's variance ({seen.spread:.3g} times the "
            f"median's standard deviation; its weights reach {seen.output_ratio:.3g} times the median's): whoever stores the "
            "output needs one scale for all",
            {
                "channel": float(seen.top_output),
                "share": seen.top_share,
                "ratio": seen.spread,
                "range_ratio": seen.output_ratio,
            },
        )
