"""`hwc-onnx evaluate`: measure a model, or the drop between two."""

from __future__ import annotations

import click

from .configuration import Configurable
from .options import data_option, input_shape_option, metric_option, model_argument, preset_option, task_option
from .settings import Settings, shared_options


@click.command(cls=Configurable, short_help="Accuracy, or the drop between two models.")
@model_argument
@data_option
@click.option("--against", metavar="ORIGINAL", help="Also measure this model, and the paired drop from it.")
@metric_option
@task_option
@preset_option
@input_shape_option
@shared_options
def evaluate(
    settings: Settings,
    model: str,
    data: str | None,
    against: str | None,
    metric: str | None,
    task: str | None,
    preset: str | None,
    input_shapes: dict[str, tuple[int, ...]] | None,
) -> None:
    """Accuracy of MODEL in ONNX Runtime, with a 95% interval.

    With --against, the drop from the original is measured sample by sample, which is far tighter than the
    difference of two intervals. A file written by hwc-onnx is fed with the preprocessing stored in it.

    \b
    Examples:
      hwc-onnx evaluate model.onnx --data val.npz
      hwc-onnx evaluate model.hwc.onnx --data val.npz --against model.onnx
      hwc-onnx evaluate model.hwc.onnx --data val.npz --against model.onnx --metric agreement --json
    """
    from hwc_onnx import api
    from hwc_onnx.report.evaluation_table import evaluation_tables
    from hwc_onnx.report.payloads import evaluation_payload

    measured = api.evaluate(
        model, data=data, against=against, metric=metric, task=task, preset=preset, input_shapes=input_shapes
    )
    payload = evaluation_payload(measured, model, against)
    settings.show(payload, lambda: evaluation_tables(payload))
