"""`hwc-onnx data`: whether samples are what a model expects, before a search is spent on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .configuration import Configurable
from .options import data_option, input_shape_option, metric_option, model_argument, preset_option, task_option
from .settings import Settings, shared_options


@click.group(short_help="Check samples before a search.")
def data() -> None:
    """Look at data as a model sees it.

    \b
    Examples:
      hwc-onnx data check model.onnx --data val.npz
    """


@data.command("check", cls=Configurable, short_help="Values, labels, float accuracy, and which preset fits.")
@model_argument
@data_option
@metric_option
@task_option
@preset_option
@click.option(
    "--samples", type=click.IntRange(min=64), default=2048, show_default=True, help="Samples to look at, at most."
)
@click.option("--figure", metavar="FILE.png", help="Also draw the first 64 images as the model sees them.")
@input_shape_option
@shared_options
@click.pass_context
def check(ctx: click.Context, /, settings: Settings, model: str, figure: str | None, **options: Any) -> None:
    """Shapes, ranges and labels of the samples that MODEL is fed, and its float accuracy on them.

    Where the samples are pixels, every preset of normalisation is tried on the same samples, so that a wrong one is seen before a
    search. A score at chance, or too few samples, exits with 4.

    \b
    Examples:
      hwc-onnx data check model.onnx --data val.npz
      hwc-onnx data check model.onnx --data photographs --preset imagenet --figure sheet.png
      hwc-onnx data check model.onnx --data val.npz --json
    """
    from hwc_onnx import api
    from hwc_onnx.data_check import write_sheet
    from hwc_onnx.report.data_check_table import data_check_tables

    found = api.check_data(model, **options)
    if figure is not None:
        write_sheet(Path(figure), found.samples)
    settings.show(found.payload, lambda: data_check_tables(found.payload))
    if found.error is not None:
        click.echo(f"error: {found.error}", err=True)
        ctx.exit(4)
