"""`hwc-onnx inspect`: how hwc-onnx reads a model."""

from __future__ import annotations

from pathlib import Path

import click

from .configuration import Configurable
from .options import accelerator_option, data_option, input_shape_option, model_argument
from .settings import Settings, shared_options


@click.command(cls=Configurable, short_help="Layers, channel groups, and what is locked.")
@model_argument
@accelerator_option
@click.option("--figure", metavar="FILE.svg", help="Also draw the layers with one colour for each channel group.")
@data_option
@input_shape_option
@shared_options
def inspect(
    settings: Settings,
    model: str,
    accelerator: str,
    figure: str | None,
    data: str | None,
    input_shapes: dict[str, tuple[int, ...]] | None,
) -> None:
    """Layers, channel groups and activation groups of MODEL, with the reason where channels cannot be removed.

    \b
    Examples:
      hwc-onnx inspect model.onnx
      hwc-onnx inspect model.onnx --input-shape images:1x3x224x224
      hwc-onnx inspect model.onnx --json
      hwc-onnx inspect model.onnx --figure groups.svg
    """
    from hwc_onnx import api
    from hwc_onnx.files import cache_folder
    from hwc_onnx.profiling import graph_cost
    from hwc_onnx.report.group_figure import checked_svg, write_group_figure
    from hwc_onnx.report.inspect_table import inspect_tables
    from hwc_onnx.report.payloads import inspect_payload

    page = None if figure is None else checked_svg(figure)
    graph = api.inspect(model, data=data, input_shapes=input_shapes)
    with settings.progress() as progress:
        cost = graph_cost(graph, accelerator, cache_folder(), progress)
    payload = inspect_payload(graph, cost, accelerator)
    if page is not None:
        write_group_figure(page, payload, f"Channel groups of {Path(model).name}")
    settings.show(payload, lambda: inspect_tables(payload))
