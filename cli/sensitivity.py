"""`hwc-onnx sensitivity`: which layers lose how much under which compression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .configuration import Configurable
from .options import (
    accelerator_option,
    data_option,
    input_shape_option,
    metric_option,
    model_argument,
    preset_option,
    split_seed_option,
    task_option,
)
from .parameters import Widths
from .settings import Settings, shared_options


@click.command(cls=Configurable, short_help="Damage of each layer under each compression.")
@model_argument
@data_option
@metric_option
@task_option
@preset_option
@accelerator_option
@click.option("--widths", type=Widths, default="8,6,4,3,2", show_default=True, help="Widths of weights to try.")
@click.option(
    "--activation-widths", type=Widths, default="8,6,4", show_default=True, help="Widths of activations to try."
)
@click.option("--include", metavar="PATTERN", multiple=True, help="Only layers that match. May be repeated.")
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave out layers that match. May be repeated.")
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Samples of the search split that each variant is measured on.",
)
@split_seed_option
@click.option("--figure", metavar="FILE.svg", help="Also draw a heat map of layers and settings.")
@input_shape_option
@shared_options
def sensitivity(settings: Settings, model: str, figure: str | None, **options: Any) -> None:
    """How much accuracy each layer of MODEL loses under each kind of compression, alone and together.

    One layer's weights, one stored tensor or one group of channels is compressed at a time, everything else stays in
    float. Beside the damage stands the layer's share of the energy; below, the sum of all damages beside the damage of
    all together.

    \b
    Examples:
      hwc-onnx sensitivity model.onnx --data val.npz
      hwc-onnx sensitivity model.onnx --data val.npz --figure heat.svg
      hwc-onnx sensitivity model.onnx --data val.npz --widths 8,4 --exclude "block1*" --json
    """
    from hwc_onnx import api
    from hwc_onnx.files import cache_folder
    from hwc_onnx.report.group_figure import checked_svg
    from hwc_onnx.report.sensitivity_figure import write_sensitivity_figure
    from hwc_onnx.report.sensitivity_table import sensitivity_tables

    page = None if figure is None else checked_svg(figure)
    with settings.progress() as progress:
        found = api.sensitivity(model, on_event=progress, cache_dir=cache_folder(), **options)
    payload = found.to_json()
    if page is not None:
        write_sensitivity_figure(page, payload, f"Sensitivity of {Path(model).name}")
    settings.show(payload, lambda: sensitivity_tables(payload, notes=settings.quiet))
