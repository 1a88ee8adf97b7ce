"""`hwc-onnx apply`: rebuild a plan, or apply one setting everywhere, without a search."""

from __future__ import annotations

from typing import Any

import click

from .configuration import Configurable
from .options import (
    accelerator_option,
    data_option,
    exclude_option,
    include_option,
    input_shape_option,
    keep_heads_option,
    metric_option,
    min_channels_option,
    model_argument,
    preset_option,
    ratio_bounds_option,
    task_option,
)
from .settings import Settings, shared_options


@click.command(cls=Configurable, short_help="Apply a plan or one setting, without a search.")
@model_argument
@click.option("--plan", metavar="FILE", help="A plan.json written by compress.")
@click.option(
    "--uniform", metavar="SPEC", help='One setting for every layer, such as "w4a8" or "w4a8,fine=magnitude:0.5".'
)
@click.option(
    "-o", "--output", metavar="FILE", help="Compressed model. Default: <stem>.hwc.onnx in the current folder."
)
@click.option("--save-plan", metavar="FILE", help="Also write the plan with what was achieved.")
@click.option(
    "--recovery",
    type=click.Choice(["none", "ranges", "full", "sequential"]),
    help="Repair with calibration data: nothing, ranges only, every layer by itself (full), or every layer after those"
    " before it (sequential). Default: the plan's own; full for a uniform setting.",
)
@click.option(
    "--ranges",
    type=click.Choice(["minmax", "percentile", "mse", "entropy"]),
    help="How ranges of activations are chosen: all values seen, 0.01% cut off either tail, least squared error, or"
    " least relative entropy."
    " Default: the plan's own; mse for a uniform setting.",
)
@click.option(
    "--power-of-two-scales/--any-scales",
    "power_of_two",
    default=None,
    help="Whether all scales are powers of two, for accelerators that requantize by shifts. Default: the plan's own; any"
    " for a uniform setting.",
)
@click.option(
    "--polish/--no-polish",
    default=None,
    help="Whether layers of at most 4 weight bits are rounded up or down anew after full or sequential recovery (AdaRound),"
    " kept where that measures better. Default: the plan's own; no for a uniform setting.",
)
@click.option(
    "--repairs",
    metavar="LIST",
    help="Of the repairs that full and sequential recovery make beside fitting weights, those to keep: some of"
    " equalize,attention,absorb,bias,statistics,normalizations, or none. Default: the plan's own; all for a uniform setting.",
)
@click.option(
    "--dialect",
    metavar="NAME",
    help="How quantization is written: ort, openvino, qcdq, qonnx or tensorrt (see docs/dialects.md). Default: the plan's own;"
    " ort for a uniform setting.",
)
@click.option(
    "--portable/--no-portable",
    default=None,
    help="Whether 8-bit weights are limited to +-63, safe on x86 without VNNI. Default: the plan's own; no for a uniform"
    " setting.",
)
@include_option
@exclude_option
@click.option("--lanes", type=click.IntRange(min=1), help="Keep channels in multiples of this. Default: 1.")
@min_channels_option
@ratio_bounds_option
@keep_heads_option
@click.option(
    "--first-last",
    type=click.Choice(["keep", "free"]),
    help="Keep the network's input and the last layer's input at 8 bits, or give them the setting too. Default: keep.",
)
@data_option
@metric_option
@task_option
@preset_option
@click.option("--split-seed", type=int, help="Which samples calibrate and judge. Default: the plan's own.")
@accelerator_option
@input_shape_option
@shared_options
@click.pass_context
def apply(
    ctx: click.Context,
    settings: Settings,
    model: str,
    plan: str | None,
    uniform: str | None,
    output: str | None,
    save_plan: str | None,
    recovery: str | None,
    ranges: str | None,
    power_of_two: bool | None,
    polish: bool | None,
    repairs: str | None,
    dialect: str | None,
    portable: bool | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    lanes: int | None,
    min_channels: dict[str, int],
    ratio_bounds: dict[str, tuple[float, float]],
    keep_heads: bool,
    first_last: str | None,
    data: str | None,
    metric: str | None,
    task: str | None,
    preset: str | None,
    split_seed: int | None,
    accelerator: str,
    input_shapes: dict[str, tuple[int, ...]] | None,
) -> None:
    """Compress MODEL as a plan says, or with one setting wherever it is allowed.

    A uniform setting reads w<bits>a<bits>, then optionally fine=<algorithm>:<ratio> for zeros in the weights or
    coarse=<algorithm>:<ratio> for channels removed. --include, --exclude, --lanes, --min-channels, --ratio-bounds,
    --keep-heads and --first-last say which layers it reaches and how far; a plan has its own. The same plan and data give
    the same bytes on the same machine.

    \b
    Examples:
      hwc-onnx apply model.onnx --uniform w8a8 --data val.npz
      hwc-onnx apply model.onnx --uniform "w4a8,fine=magnitude:0.5" --data val.npz -o w4.onnx
      hwc-onnx apply model.onnx --uniform "w8a8,coarse=l1:0.3" --data val.npz --save-plan plan.json
      hwc-onnx apply model.onnx --uniform "w8a8,coarse=gram:0.5" --lanes 8 --min-channels 32 --exclude "re:.*head.*"
      hwc-onnx apply model.onnx --plan model.hwc/plan.json --data val.npz
      hwc-onnx apply model.onnx --plan model.hwc/plan.json --data val.npz --dialect openvino
    """
    if (plan is None) == (uniform is None):
        both = ", not both" if plan is not None else ""
        raise click.UsageError(f"give either --plan FILE or --uniform SPEC{both}", ctx)
    if repairs is not None and "none" in repairs.split(",") and repairs != "none":
        raise click.UsageError(f"--repairs {repairs}: none stands alone; leave it out, or the others", ctx)
    narrowed = {
        "include": include,
        "exclude": exclude,
        "lanes": lanes,
        "min_channels": min_channels,
        "ratio_bounds": ratio_bounds,
        "keep_heads": keep_heads,
        "first_last": first_last,
    }
    limits: dict[str, Any] = {name: value for name, value in narrowed.items() if value}
    if plan is not None and limits:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in limits)
        raise click.UsageError(f"{flags}: for --uniform; a plan has its own, edit them there", ctx)
    from hwc_onnx import api
    from hwc_onnx.report.applied_table import applied_tables
    from hwc_onnx.report.payloads import applied_payload

    notes: list[str] = []
    chosen: Any = plan
    if uniform is not None:
        chosen = api.uniform_plan(model, uniform, input_shapes=input_shapes, data=data, note=notes.append, **limits)
    with settings.progress() as progress:
        applied = api.apply_plan(
            model,
            plan=chosen,
            data=data,
            recovery=recovery,
            ranges=ranges,
            power_of_two=power_of_two,
            polish=polish,
            repairs=None if repairs is None else [name for name in repairs.split(",") if name not in ("", "none")],
            dialect=dialect,
            portable=portable,
            metric=metric,
            task=task,
            preset=preset,
            accelerator=accelerator,
            input_shapes=input_shapes,
            split_seed=split_seed,
            output=output,
            on_event=progress,
        )
    written = applied.save(output)
    if save_plan is not None:
        applied.save_plan(save_plan)
    payload = applied_payload(applied, written, notes)
    settings.show(payload, lambda: applied_tables(payload))
