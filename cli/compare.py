"""`hwc-onnx compare`: search strategies against each other at the same budget."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from .configuration import Configurable, with_origins
from .options import (
    accelerator_option,
    activation_bits_option,
    algorithms_option,
    calibration_samples_option,
    data_option,
    exclude_option,
    include_option,
    input_shape_option,
    metric_option,
    model_argument,
    preset_option,
    search_samples_option,
    task_option,
    weight_bits_option,
)
from .parameters import Drop
from .settings import Settings, shared_options


@click.command(cls=Configurable, short_help="Search strategies at the same budget.")
@model_argument
@click.option(
    "--sampler",
    "samplers",
    metavar="NAME",
    multiple=True,
    default=("composite", "knapsack", "random"),
    show_default=True,
    help="A strategy, as for compress. May be repeated.",
)
@click.option(
    "--start",
    "starts",
    type=click.Choice(["seeds", "cold"]),
    multiple=True,
    default=("seeds",),
    show_default=True,
    help="Begin with the plans that compress begins with, or with INT8 alone. May be repeated.",
)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Searches of each: data splits and seeds."
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Budget of each search in evaluations, or as many images; preparation counts.",
)
@data_option
@accelerator_option
@click.option(
    "--max-drop",
    type=Drop,
    default="1.0",
    show_default=True,
    help="Largest accuracy drop: points (1.0) or share of the original's value (1%).",
)
@metric_option
@task_option
@preset_option
@weight_bits_option
@activation_bits_option
@algorithms_option
@include_option
@exclude_option
@input_shape_option
@calibration_samples_option
@search_samples_option
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Seeds at a time, each in one thread if several."
)
@click.option("--figure", metavar="FILE.html", help="Also draw the best saving so far of each strategy.")
@click.option("--run-dir", metavar="DIR", help="Run folder. Default: <stem>.compare in the current folder.")
@click.option(
    "--dry-run", is_flag=True, help="Check the inputs, print what would be done and about how long it takes, and write nothing."
)
@click.option("--fresh", is_flag=True, help="Move an existing run folder aside and start again.")
@shared_options
@click.pass_context
def compare(ctx: click.Context, /, settings: Settings, model: str, figure: str | None, dry_run: bool, **options: Any) -> None:
    """Search for compressions of MODEL with several strategies, and say which finds the cheapest.

    Every strategy gets the same data, first plans and budget, counted in evaluations and in images through the network.
    Each search is a study of its own; its best plan is judged on samples that it never saw. The table has medians and
    quartiles over seeds, and a paired one-sided Wilcoxon test of the agent against each other strategy. Running the
    same command again continues the run folder; samplers, starts and seeds may be added.

    \b
    Examples:
      hwc-onnx compare model.onnx --data val.npz --seeds 10 --jobs 2
      hwc-onnx compare model.onnx --data val.npz --sampler composite --sampler tpe --trials 60
      hwc-onnx compare model.onnx --data val.npz --start seeds --start cold --figure curves.html
      hwc-onnx compare model.onnx --data val.npz --seeds 10 --dry-run
    """
    from hwc_onnx import api
    from hwc_onnx.report.compare_figure import write_compare_figure
    from hwc_onnx.report.compare_table import compare_tables
    from hwc_onnx.report.profile_figure import checked_path

    page = None if figure is None else checked_path(figure)
    if dry_run:
        _plan(ctx, settings, model, options)
        return
    with settings.progress() as progress:
        try:
            payload = api.compare(model, on_event=progress, **options).to_json()
        except KeyboardInterrupt:
            progress.interrupted(shlex.join(["hwc-onnx", *sys.argv[1:]]), "every finished trial and row is kept")
            raise
    if page is not None:
        write_compare_figure(page, payload)
    settings.show(payload, lambda: compare_tables(payload, notes=settings.quiet))


def _plan(ctx: click.Context, settings: Settings, model: str, arguments: dict[str, Any]) -> None:
    """What would be done."""
    from hwc_onnx import api
    from hwc_onnx.report.dry_run_table import dry_run_payload, dry_run_tables

    with settings.progress() as progress:
        found = api.plan_comparison(model, on_event=progress, **arguments)
    payload = dry_run_payload(found, {key: entry for key, entry in with_origins(ctx).items() if entry[0] is not None})
    settings.show(payload, lambda: dry_run_tables(payload))
