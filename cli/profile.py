"""`hwc-onnx profile`: what one inference costs on an accelerator, node by node."""

from __future__ import annotations

from pathlib import Path

import click

from .configuration import Configurable
from .options import DEFAULT_ACCELERATOR, data_option, input_shape_option, model_argument
from .settings import Settings, shared_options


@click.command(cls=Configurable, short_help="Energy, latency and traffic of each node.")
@model_argument
@click.option(
    "--accel",
    "accelerators",
    metavar="NAME|FILE",
    multiple=True,
    default=(DEFAULT_ACCELERATOR,),
    show_default=True,
    help="Accelerator profile; several are shown side by side.",
)
@click.option(
    "--top", type=click.IntRange(min=1), metavar="N", help="Only the N nodes that cost most, with --json too."
)
@click.option(
    "--explain", "node", metavar="NODE", help="Every product that this node's energy is the sum of, with sources."
)
@click.option(
    "--figure", metavar="FILE.html", help="Also write a page with a bar for each node, divided into components."
)
@click.option("--plan", metavar="FILE", help="Cost the model as this plan would leave it, without building it.")
@click.option(
    "--cache",
    metavar="FOLDER",
    help="Where searched mappings are kept for the next run [default: $HWC_ONNX_CACHE, else the user's cache folder].",
)
@data_option
@input_shape_option
@shared_options
def profile(
    settings: Settings,
    model: str,
    accelerators: tuple[str, ...],
    top: int | None,
    node: str | None,
    figure: str | None,
    plan: str | None,
    cache: str | None,
    data: str | None,
    input_shapes: dict[str, tuple[int, ...]] | None,
) -> None:
    """Energy, latency and traffic of each node of MODEL on an accelerator, beside the INT8 baseline and float.

    The figures are computed from the profile, not measured; `hwc-onnx accel show NAME` lists its constants with
    their sources.

    \b
    Examples:
      hwc-onnx profile model.onnx
      hwc-onnx profile model.onnx --accel edge-flex --accel edge-tpu-64x64 --top 10
      hwc-onnx profile model.hwc.onnx --json --top 5
      hwc-onnx profile model.onnx --explain conv1_output
      hwc-onnx profile model.onnx --accel my-chip.yaml --figure model.html
    """
    from hwc_onnx import api
    from hwc_onnx.files import cache_folder
    from hwc_onnx.report.explain_table import explain_tables
    from hwc_onnx.report.profile_figure import checked_path, write_figure
    from hwc_onnx.report.profile_table import profile_tables, with_nodes

    page = None if figure is None else checked_path(figure)
    folder = cache or cache_folder()
    with settings.progress() as progress:
        found = [
            api.profile(
                model, accelerator=name, data=data, input_shapes=input_shapes, plan=plan, cache_dir=folder, on_event=progress
            )
            for name in accelerators
        ]
    payloads = with_nodes([one.to_json(node) for one in found], top, node)
    if page is not None:
        write_figure(page, [one.to_json(True) for one in found], f"Energy of {Path(model).name}", top)
    settings.show(
        payloads[0] if len(payloads) == 1 else payloads,
        lambda: explain_tables(payloads) if node is not None else profile_tables(payloads),
    )
