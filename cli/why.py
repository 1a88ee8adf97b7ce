"""`hwc-onnx why`: which layers lose accuracy under a plan, why, and what helps."""

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
    task_option,
)
from .settings import Settings, shared_options


@click.command(cls=Configurable, short_help="Which layers lose accuracy, why, and what helps.")
@model_argument
@click.option("--plan", metavar="FILE", help="A plan.json to look at.")
@click.option(
    "--uniform",
    "spec",
    metavar="SPEC",
    help='One setting for every layer, such as "w4a8" or "w4a8,fine=magnitude:0.5". Default: w8a8.',
)
@click.option(
    "--recovery",
    type=click.Choice(["none", "ranges", "full", "sequential"]),
    help="Repair with calibration data, as for apply. Default: the plan's own; full for a uniform setting.",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=10, show_default=True, help="Layers to look at, those that lose most."
)
@data_option
@metric_option
@task_option
@preset_option
@accelerator_option
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Samples of the search split that each variant is measured on.",
)
@click.option("--split-seed", type=int, help="Which samples calibrate and judge. Default: the plan's own.")
@click.option("--save-plan", metavar="FILE", help="Write the plan with the remedies that help.")
@click.option("--figure", metavar="FILE.svg", help="Also draw a heat map of layers and their parts.")
@input_shape_option
@shared_options
@click.pass_context
def why(
    ctx: click.Context,
    /,
    settings: Settings,
    model: str,
    plan: str | None,
    spec: str | None,
    save_plan: str | None,
    figure: str | None,
    **options: Any,
) -> None:
    """Which layers of MODEL lose accuracy under a plan, the cause of each, and which remedy helps.

    The layers that lose most are measured alone and left out of the plan. The cause is named with the measured numbers
    it follows from; remedies (more bits, other ranges, recovery or algorithms, float) are tried, and the best is named with
    the change that makes it.

    \b
    Examples:
      hwc-onnx why model.onnx --data val.npz
      hwc-onnx why model.onnx --uniform w4a8 --data val.npz --save-plan better.json
      hwc-onnx why model.onnx --plan model.hwc/plan.json --data val.npz --top 5 --json
    """
    if plan is not None and spec is not None:
        raise click.UsageError("give either --plan FILE or --uniform SPEC", ctx)
    if save_plan is not None and not Path(save_plan).parent.is_dir():
        raise click.UsageError(f"--save-plan: the folder {Path(save_plan).parent} does not exist; create it first", ctx)
    from hwc_onnx import api
    from hwc_onnx.files import cache_folder
    from hwc_onnx.report.group_figure import checked_svg
    from hwc_onnx.report.sensitivity_figure import write_why_figure
    from hwc_onnx.report.why_table import why_tables

    page = None if figure is None else checked_svg(figure)
    with settings.progress() as progress:
        found = api.why(model, plan=plan, spec=spec, on_event=progress, cache_dir=cache_folder(), **options)
    if save_plan is not None:
        found.save_plan(save_plan)
    payload = found.to_json()
    if page is not None:
        write_why_figure(page, payload, f"What {Path(model).name} loses")
    settings.show(payload, lambda: why_tables(payload, notes=settings.quiet))
