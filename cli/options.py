"""Options that several commands share, each defined once so that it means the same everywhere."""

from __future__ import annotations

from typing import Any

import click

from .parameters import BitRange, InputShape, MinChannels, RatioBounds, names

DEFAULT_ACCELERATOR = "edge-flex"

model_argument = click.argument("model", metavar="MODEL")

accelerator_option = click.option(
    "--accel",
    "accelerator",
    metavar="NAME|FILE",
    default=DEFAULT_ACCELERATOR,
    show_default=True,
    help="Accelerator profile: a name of `accel list`, or a YAML file.",
)
data_option = click.option(
    "--data",
    metavar="SOURCE",
    help="Samples: an .npz or .npy file, an image folder, CIFAR or IDX files, module:function, or `synthetic` (see docs/data.md). A "
    "search needs 256 samples or more, which it splits in three.",
)
metric_option = click.option(
    "--metric",
    metavar="NAME",
    help="top1, top5, agreement, miou, cosine, sqnr, mse or module:function. Default: chosen from the data.",
)
task_option = click.option(
    "--task", metavar="NAME", help="What the outputs are, where the model does not say: classification, ..."
)
preset_option = click.option(
    "--preset",
    metavar="NAME",
    help="How to prepare images: imagenet, unit (0..1), signed (-1..1), raw (0..255) or another of docs/data.md. Default: what the "
    "model file says, else the data.",
)
split_seed_option = click.option(
    "--split-seed", default=0, show_default=True, help="Which samples calibrate, search and judge."
)


def _shapes(
    _: click.Context, __: click.Parameter, value: tuple[tuple[str, tuple[int, ...]], ...]
) -> dict[str, tuple[int, ...]] | None:
    return dict(value) or None


input_shape_option = click.option(
    "--input-shape",
    "input_shapes",
    type=InputShape,
    multiple=True,
    callback=_shapes,
    help="Static shape of a dynamic input, such as x:1x3x224x224. May be repeated.",
)

include_option = click.option(
    "--include",
    metavar="PATTERN",
    multiple=True,
    help="Compress only layers that match: a glob, re:<regular expression>, or an operator type. May be repeated.",
)
exclude_option = click.option(
    "--exclude", metavar="PATTERN", multiple=True, help="Leave layers that match. May be repeated."
)


def _by_pattern(_: click.Context, __: click.Parameter, value: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    found = dict(value)
    if len(found) < len(value):
        patterns = [pattern for pattern, _ in value]
        twice = next(pattern for pattern in patterns if patterns.count(pattern) > 1)
        raise click.BadParameter(f"'{twice}' is given twice; give each pattern once")
    return found


min_channels_option = click.option(
    "--min-channels",
    metavar="[PATTERN=]N",
    type=MinChannels,
    multiple=True,
    callback=_by_pattern,
    help="Fewest output channels that layers keep, such as 16 or Conv=16. May be repeated.",
)
ratio_bounds_option = click.option(
    "--ratio-bounds",
    metavar="[PATTERN=]LOW-HIGH",
    type=RatioBounds,
    multiple=True,
    callback=_by_pattern,
    help="Lowest and highest ratio that layers may get, such as 0-0.5 or head=0-0. May be repeated; all that match hold.",
)
keep_heads_option = click.option("--keep-heads", is_flag=True, help="Leave every attention head.")

weight_bits_option = click.option(
    "--weight-bits", type=BitRange, default="2-8", show_default=True, help="Widths that weights may take."
)
activation_bits_option = click.option(
    "--activation-bits", type=BitRange, default="4-8", show_default=True, help="Widths that activations may take."
)
algorithms_option = click.option(
    "--algorithms",
    type=names(tables=("hwc_onnx.pruning.table:FINE", "hwc_onnx.pruning.table:COARSE")),
    help="Pruning algorithms to choose from. Default: all that fit.",
)
calibration_samples_option = click.option(
    "--calibration-samples", type=click.IntRange(min=1), help="Samples for ranges and statistics."
)
search_samples_option = click.option(
    "--search-samples", type=click.IntRange(min=1), help="Samples that each candidate is measured on."
)
