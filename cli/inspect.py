"""`hwc-onnx inspect`: how hwc-onnx reads a model."""

from __future__ import annotations

import click

from .options import input_shape_option, model_argument
from .settings import Settings, shared_options


@click.command(short_help="Layers, channel groups, and what is locked.")
@model_argument
@input_shape_option
@shared_options
def inspect(settings: Settings, model: str, input_shapes: dict[str, tuple[int, ...]] | None) -> None:
    """Layers, channel groups and activation groups of MODEL, with the reason where channels cannot be removed.

    \b
    Examples:
      hwc-onnx inspect model.onnx
      hwc-onnx inspect model.onnx --input-shape images:1x3x224x224
      hwc-onnx inspect model.onnx --json
    """
    from hwc_onnx import api
    from hwc_onnx.report.inspect_table import inspect_tables
    from hwc_onnx.report.payloads import inspect_payload

    graph = api.inspect(model, input_shapes=input_shapes)
    payload = inspect_payload(graph)
    settings.show(payload, lambda: inspect_tables(payload))
